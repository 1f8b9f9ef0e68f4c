"""What a rehearsal prints."""

import json

from daemon.commands.rehearse.judge import Verdict
from daemon.commands.rehearse.report import json_line, progress, summary, table

WELL = Verdict(
    fault="okx mute",
    told=("reconnecting", "connecting", "live"),
    reason="OKX sent no data for 2 s",
    notice_s=2.0123,
    told_s=0.004,
    recover_s=0.25,
)
BAD = Verdict(fault="binance refuse", lost=3, up=False, disturbed=("ethprice",), problems=("it is down", "3 lost"))
PROMISED = Verdict(fault="coingecko error_body", told=("reconnecting",), reason="a pause of 60 s", promised_s=59.2)


def test_a_row_for_each_verdict_and_why_it_is_not_well() -> None:
    lines = table([WELL, BAD, PROMISED], width=160).splitlines()
    assert lines[0].split() == [
        *("fault", "clients", "were", "told", "noticed", "recovered", "lost", "doubled", "others", "daemon")
    ]
    assert lines[2].split() == ["binance", "refuse", "nothing", "-", "-", "3", "0", "disturbed", "DOWN"]
    assert lines[3:5] == ["    NOT WELL: it is down", "    NOT WELL: 3 lost"]
    assert "reconnecting (a pause of 60 s)   " in lines[5]
    assert "  -        told: in 59 s  0 " in lines[5]
    assert "reconnecting > connecting > live (OKX sent no data for 2 s)  2.01 s   0.25 s " in lines[6]
    assert lines[-1].startswith("2 of 3 faults ended well: 3 messages lost, 0 doubled")


def test_a_long_reason_is_cut_to_the_width() -> None:
    for line in table([Verdict(fault="okx mute", reason="so " * 100)], width=100).splitlines()[:3]:
        assert len(line) <= 100


def test_the_summary_of_nothing() -> None:
    assert summary([]) == "0 of 0 faults ended well: 0 messages lost, 0 doubled"


def test_a_line_as_each_ends() -> None:
    assert progress(3, 108, WELL) == "  3/108 well     okx mute"
    assert progress(4, 108, BAD) == "  4/108 NOT WELL binance refuse"


def test_json() -> None:
    fields = json.loads(json_line(WELL))
    assert fields["well"] is True
    assert fields["told"] == ["reconnecting", "connecting", "live"]
    assert (fields["notice_s"], fields["recover_s"], fields["promised_s"]) == (2.012, 0.25, None)
    assert json.loads(json_line(BAD))["problems"] == ["it is down", "3 lost"]
