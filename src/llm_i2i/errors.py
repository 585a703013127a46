"""One family of errors: each says where, what was found, what was expected and how to fix it."""


class LlmI2iError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        where: File, table, parameter key or stage at fault.
        found: What is there, with counts and a first example.
        expected: The rule it breaks; may be empty if `found` says it.
        fix: What the user does next.
    """

    def __init__(self, where: str, found: str, expected: str = "", fix: str = "") -> None:
        self.where, self.found, self.expected, self.fix = where, found, expected, fix
        message = f"{where}: {found}"
        if expected:
            message += f"; expected {expected}"
        if fix:
            message += f"; {fix}"
        super().__init__(message.rstrip(".") + ".")


class ParamsError(LlmI2iError):
    """params.yaml breaks one or more rules; all of them are listed at once."""


class DataError(LlmI2iError):
    """A raw table is missing, malformed or fails an expectation."""


class ArtifactError(LlmI2iError):
    """A stage's input artifact is missing or does not fit its schema."""


class BaseModelError(LlmI2iError):
    """The base LLM cannot be obtained or loaded."""


class GenerationError(LlmI2iError):
    """No valid item can be generated, or no row is left after a filter."""
