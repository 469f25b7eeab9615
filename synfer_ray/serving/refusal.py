"""Why a request is not answered, in the words of HTTP; every entrance says it in its own way."""


class Refusal(Exception):
    """A request that cannot be answered.

    Args:
        status: the HTTP status; gRPC has a code for each of them.
        message: what was wrong, for the caller.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def bad_request(message: str) -> Refusal:
    """The request is malformed, or says something that the model does not take."""
    return Refusal(400, message)
