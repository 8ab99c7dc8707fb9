"""Claims of the papers, re-tested at a scale that runs here: arms are trained, measured, and a rule says pass or fail.

scale --arms--> trained networks --measure--> rows (arm, seed) --rule--> findings with intervals --> JSON and a page
"""
