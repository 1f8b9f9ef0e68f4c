"""The files of the live page: what is served, how, and what must not be in them."""

import html.parser
import re
from pathlib import Path
from urllib.parse import urljoin

import pytest
import trio
from trio.testing import memory_stream_pair

from daemon.front.http import Conversation, Request, Response
from daemon.front.limits import Limits
from daemon.host.clock import WallClock
from daemon.routes.page import FILES, Page

WEB = Path(__file__).parents[3] / "daemon" / "routes" / "web"
MOST_BYTES = 150 * 1024
MOST_CLIENT_BYTES = 10 * 1024 + 256
PAGE = Page()


def get(path: str, *headers: tuple[str, str]) -> Response:
    return PAGE.answer(Request(method="GET", path=path, headers=headers, peer="192.0.2.1"))


def header(response: Response, name: str) -> str:
    return dict(response.headers)[name]


@pytest.mark.parametrize(("path", "named"), FILES.items())
def test_each_file_is_served_with_its_type_and_policy(path: str, named: tuple[str, str]) -> None:
    name, content_type = named
    response = get(path)
    assert (response.status, response.content_type) == (200, content_type)
    assert response.body.startswith((WEB / name).read_bytes())
    assert (len(response.body) > len((WEB / name).read_bytes())) == (path == "/client.d.ts")
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    types[".ts"] = "text/plain"
    assert content_type.partition(";")[0] == types[Path(name).suffix]
    policy = header(response, "Content-Security-Policy").split("; ")
    assert policy[0] == "default-src 'self'"
    assert not re.search("unsafe|https?:|[*]", " ".join(policy))
    assert header(response, "Cache-Control") == "no-cache"


def test_nothing_lies_in_the_folder_that_is_not_served() -> None:
    assert sorted(file.name for file in WEB.iterdir()) == sorted(name for name, _ in FILES.values())


def test_only_the_client_is_for_other_sites_too() -> None:
    shared = [path for path in FILES if "Access-Control-Allow-Origin" in dict(get(path).headers)]
    assert sorted(shared) == ["/client.d.ts", "/client.js"]


def test_it_stays_small() -> None:
    assert sum(len(get(path).body) for path in FILES if path != "/client.d.ts") < MOST_BYTES
    assert len(get("/client.js").body) < MOST_CLIENT_BYTES


@pytest.mark.parametrize("known", ["{}", "W/{}", '"other", {}', "*"])
def test_what_the_browser_has_is_not_sent_again(known: str) -> None:
    etag = header(get("/page.js"), "ETag")
    assert re.fullmatch('"[0-9a-f]{20}"', etag)
    response = get("/page.js", ("if-none-match", known.format(etag)))
    assert (response.status, response.body, header(response, "ETag")) == (304, b"", etag)


def test_another_version_is_sent() -> None:
    assert get("/page.js", ("if-none-match", header(get("/client.js"), "ETag"))).status == 200
    assert len({header(get(path), "ETag") for path in FILES}) == len(FILES)


def test_a_missing_file_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.html"):
        Page(tmp_path)


async def test_on_the_wire_a_304_has_no_length_and_no_body() -> None:
    ours, theirs = memory_stream_pair()
    limits = Limits(head_bytes=8192, body_bytes=1024, handshake_s=5, keep_alive_s=5, write_deadline_s=5)
    deadline = trio.current_time() + 5
    http = Conversation(ours, limits, WallClock(), peer="192.0.2.1", secure=False, head_deadline=deadline)
    etag = header(get("/"), "ETag")
    await theirs.send_all(f"GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: {etag}\r\n\r\n".encode())
    request = await http.receive()
    assert request is not None
    await http.send(PAGE.answer(request))
    sent = bytes(await theirs.receive_some())
    assert sent.startswith(b"HTTP/1.1 304 ")
    assert b"content-length" not in sent.lower()
    assert b"X-Content-Type-Options: nosniff\r\n" in sent
    assert sent.endswith(b"\r\n\r\n")
    assert http.next_cycle(), "the connection goes on"


class Markup(html.parser.HTMLParser):
    """What is in the page's HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(get("/").body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_nothing_is_inline_and_every_link_stays_here() -> None:
    tags = Markup().tags
    names = {tag for tag, _ in tags}
    assert "style" not in names
    scripts = [attributes for tag, attributes in tags if tag == "script"]
    assert scripts == [{"src": "theme.js"}, {"type": "module", "src": "page.js"}]
    for tag, attributes in tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        for name in ("src", "href"):
            # Below a prefix too, whichever it is.
            assert urljoin("https://here/feed/", attributes.get(name) or "").startswith("https://here/feed/"), tag
    linked = {urljoin("/", link) for _, each in tags if (link := each.get("href") or each.get("src"))}
    assert linked - set(FILES) == {"/#prices", "/channels", "/readyz"}


@pytest.mark.parametrize("path", FILES)
def test_no_file_names_another_host_or_writes_html(path: str) -> None:
    text = get(path).body.decode()
    urls = [url for url in re.findall(r"\bhttps?://[^\s'\"]+", text) if url != "http://www.w3.org/2000/svg"]
    assert urls == []
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith(".js")])
def test_what_a_module_imports_is_served(path: str) -> None:
    imported = re.findall(r"""^import .* from '([^']+)'""", get(path).body.decode(), re.MULTILINE)
    assert {urljoin(path, name) for name in imported} <= set(FILES)
    assert all(name.startswith("./") for name in imported), "below a prefix too"


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith(".js") and path != "/client.js"])
def test_what_a_script_asks_for_is_below_the_pages_own_address(path: str) -> None:
    asked = re.findall(r"""\b(?:get|fetch|connect|import)\(\s*['"`]([^'"`]*)""", get(path).body.decode())
    assert not [each for each in asked if each.startswith("/")]


@pytest.mark.parametrize(
    "id", sorted(set(re.findall(r"byId\('([\w-]+)'\)", "".join(f.read_text() for f in WEB.glob("*.js")))))
)
def test_what_scripts_look_for_is_in_the_page(id: str) -> None:
    assert [attributes["id"] for _, attributes in Markup().tags if attributes.get("id") == id] == [id]
