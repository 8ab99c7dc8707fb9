"""Things that go quietly wrong in tokenizer training, each with what to do about it."""

from __future__ import annotations

MIN_CODE_USAGE = 0.02
"""Distinct ids over what the window could show; below this the quantizer is collapsing."""

ACCURACY_BAND = (0.03, 0.97)


class Alarms:
    """Checks averaged figures; every alarm is raised once until its cause has gone away."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._active: set[str] = set()

    def check(self, means: dict[str, float]) -> list[str]:
        found: dict[str, str] = {}
        usage = means.get("code_usage")
        if usage is not None and usage < MIN_CODE_USAGE:
            found["collapse"] = (
                f"code collapse: {usage:.1%} of the ids that could occur do. Raise losses.entropy (LFQ), lower "
                "revive_after (VQ), or lower the learning rate; FSQ does not need any of them"
            )
        accuracy = means.get("discriminator_accuracy")
        if accuracy is not None and not ACCURACY_BAND[0] < accuracy < ACCURACY_BAND[1]:
            found["saturated"] = (
                f"saturated discriminator: accuracy {accuracy:.1%}. Lower discriminator.lr, raise losses.r1, "
                "or start the adversarial stage later"
            )
        raised = [text for name, text in found.items() if name not in self._active]
        self._active = set(found)
        return raised
