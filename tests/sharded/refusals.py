"""What the tests of two ranks share: the message of an error crosses from rank to rank, the error itself does not."""


def refusal(attempt):
    try:
        attempt()
    except ValueError as error:
        return str(error)
    return ""
