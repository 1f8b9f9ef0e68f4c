from protocol.codes import CloseCode, ErrorCode


def test_who_is_told_to_come_back() -> None:
    come_back = {code for code in CloseCode if code.may_reconnect}
    assert come_back == {1001, 1011, 1013, 4000, 4001}


def test_close_codes_are_those_of_the_contract() -> None:
    assert {int(code) for code in CloseCode} == {1000, 1001, 1003, 1007, 1008, 1009, 1011, 1013, 4000, 4001}


def test_error_codes_are_written_as_their_names() -> None:
    assert all(code.value == code.name.lower() for code in ErrorCode)
    assert f"{ErrorCode.UNKNOWN_CHANNEL}" == "unknown_channel"
