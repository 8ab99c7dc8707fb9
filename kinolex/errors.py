"""Every error that a user or a file can cause.

    KinolexError
    +-- UsageError            a wrong call: unknown name, argument out of range, impossible combination
    |   +-- ConfigError       a configuration whose values cannot work together
    |   +-- ShapeError        a tensor of the wrong rank, size, dtype or value range
    +-- MediaError            a file that should hold pictures or sound
    |   +-- MissingFile       no such file
    |   +-- UnreadableMedia   not media, truncated, empty, or damaged beyond reading
    |   +-- UnsupportedMedia  a format that cannot be read or written here
    +-- DataError             a collection, pack or manifest that is missing, stale or damaged
    +-- CheckpointError       weights or a config that are truncated, foreign, pickled or do not fit
    |   +-- UnknownModel      a name that is neither shipped, a folder, nor a hub repository
    +-- TokenError            tokens that do not belong to this tokenizer or are damaged
    +-- StreamError           a .klx file that cannot be decoded here: foreign, too large, or made with another prior
    |   +-- TruncatedStream   it ends before its end mark
    |   +-- DamagedStream     bytes changed on the way: a checksum or a stated size does not fit
    +-- TrainingError         training cannot go on (non-finite after roll-backs, state that does not fit)
    +-- MissingExtra          an optional package is needed; the message names the install command

A message says what came, what is needed, and what to do.
"""


class KinolexError(Exception):
    """Base of every error raised on purpose; the command line turns it into exit code 2."""


class UsageError(KinolexError):
    """The call itself is wrong."""


class ConfigError(UsageError):
    """A configuration whose values cannot work together."""


class ShapeError(UsageError):
    """A tensor of the wrong rank, size, dtype or value range."""


class MediaError(KinolexError):
    """A file that should hold pictures or sound."""


class MissingFile(MediaError):
    """No such file."""


class UnreadableMedia(MediaError):
    """Not media, truncated, empty, or damaged beyond reading."""


class UnsupportedMedia(MediaError):
    """A format that cannot be read or written here."""


class DataError(KinolexError):
    """A collection, pack or manifest that is missing, stale or damaged."""


class CheckpointError(KinolexError):
    """Weights or a config that are truncated, foreign, pickled or do not fit."""


class UnknownModel(CheckpointError):
    """A name that is neither shipped, a folder, nor a hub repository."""


class TokenError(KinolexError):
    """Tokens that do not belong to this tokenizer or are damaged."""


class StreamError(KinolexError):
    """A .klx file that cannot be decoded here."""


class TruncatedStream(StreamError):
    """A .klx file that ends before its end mark."""


class DamagedStream(StreamError):
    """A .klx file whose bytes changed on the way."""


class TrainingError(KinolexError):
    """Training cannot go on."""


class MissingExtra(KinolexError):
    """An optional package is needed; the message names the install command."""
