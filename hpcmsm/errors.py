"""The exception types, and nothing else.

Every message is one line: "<option or argument> <rule>, got <value><where>; <what to do>".
`exit_code` is what the command line returns: 2 for bad input, 3 for a numerical failure.
"""


class HpcmsmError(Exception):
    """Base of every error that hpcmsm raises on purpose."""

    exit_code = 3


class ConfigError(HpcmsmError):
    """A case file, an option or an argument of the command line is wrong."""

    exit_code = 2


class SetupError(HpcmsmError):
    """The machine lacks something: a compiler, a library, a writable folder."""

    exit_code = 2


class CheckpointError(HpcmsmError):
    """A checkpoint or snapshot is missing, damaged, or does not fit the case."""

    exit_code = 2


class ShapeError(HpcmsmError):
    """An array does not have the declared shape or type."""


class KernelError(HpcmsmError):
    """A fine-scale kernel cannot be found, compiled or called as declared."""


class MicroError(HpcmsmError):
    """A fine-scale model failed in some cells or broke its declared contract."""


class SolverError(HpcmsmError):
    """The macro solver diverged or produced values that are not finite."""


class SurrogateError(HpcmsmError):
    """A surrogate cannot be trained or loaded."""
