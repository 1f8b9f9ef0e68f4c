"""Answers of a mock transport, to be read as they come."""

import httpx


def streamed(response: httpx.Response) -> httpx.Response:
    """The same answer: httpx reads one that is made of bytes at once, and then it cannot be read any more."""
    if not response.is_stream_consumed:
        return response
    return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(response.content))
