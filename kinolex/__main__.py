"""python -m kinolex"""

from kinolex.cli import main

main()
