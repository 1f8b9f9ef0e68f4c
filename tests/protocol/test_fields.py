"""What connectors say of a stream has the names that it has on the wire."""

import msgspec
import pytest

from protocol import fields
from protocol.kinds import MESSAGES
from protocol.messages import (
    CandleUpdate,
    ConsolidatedQuote,
    Data,
    DepthSnapshot,
    DepthUpdate,
    QuoteUpdate,
    Trade,
)

PAIRS: dict[type[msgspec.Struct], type[Data]] = {
    fields.TradeFields: Trade,
    fields.QuoteFields: QuoteUpdate,
    fields.ConsolidatedFields: ConsolidatedQuote,
    fields.DepthFields: DepthUpdate,
    fields.SnapshotFields: DepthSnapshot,
    fields.CandleFields: CandleUpdate,
}
COMMON = {field.name for field in msgspec.structs.fields(Data)}


@pytest.mark.parametrize("mine", PAIRS)
def test_a_message_takes_its_fields_and_needs_no_others(mine: type[msgspec.Struct]) -> None:
    named = [field.name for field in msgspec.structs.fields(PAIRS[mine])]
    assert [name for name in named if name not in COMMON] == [each.name for each in msgspec.structs.fields(mine)]


def test_every_message_with_fields_of_its_own_has_such_a_struct() -> None:
    own = {each for each in MESSAGES if {field.name for field in msgspec.structs.fields(each)} != COMMON}
    assert own == set(PAIRS.values())
