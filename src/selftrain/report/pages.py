"""Templates to pages: one HTML file with style, script and data inside, that loads nothing and runs nothing foreign.

    render("page.html.j2", made_by="selftrain 0.1.0", browser=data, **values)

Everything that is not our own markup is escaped, model text and names from the configuration alike. A content security
policy in the page allows our scripts by their digests and nothing else: script that slipped into the data would not
run. jinja2 is imported when a page is made.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from selftrain.report import wording

if TYPE_CHECKING:
    from markupsafe import Markup

Json = Mapping[str, Any]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
FILTERS = ("percent", "interval", "share", "shown", "seconds_text", "count", "flops_text")
# a "<" in data would end the script element that holds it, or begin a comment in it
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def render(template: str, *, browser: Json | None, version: str = "", **values: Any) -> str:
    """A page from a template of ours.

    Args:
        browser: what the sample browser shows (`browse.browser_data`); None: no browser.
        version: of a live page, which looks for a newer one at its server; "": a page that stands alone.
        values: what the template names.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _file(f"templates/{name}")),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_visible,
    )  # fmt: skip
    environment.filters.update({name: getattr(wording, name) for name in FILTERS})
    environment.filters["before_and_after"] = wording.before_and_after
    environment.globals["pending_word"] = wording.PENDING
    scripts = {"browser_script": "browser.js"} if browser else {}
    scripts |= {"live_script": "live.js"} if version else {}
    sources = {name: _file(f"static/{file}") for name, file in scripts.items()}
    return environment.get_template(template).render(
        **values, browser=browser, browser_json=embedded_json(browser), version=version,
        style=Markup(_file("static/style.css")), policy=Markup(_policy(list(sources.values()), live=bool(version))),
        **{name: Markup(source) for name, source in sources.items()},
    )  # fmt: skip


def embedded_json(value: Any) -> Markup:
    """A value as JSON that can stand in a script element, in ASCII."""
    from markupsafe import Markup

    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_ESCAPES))


def _policy(sources: list[str], *, live: bool) -> str:
    """The page's content security policy: these inline scripts, and for a live page questions to its own server."""
    digests = (base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode() for source in sources)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return POLICY + (f"; script-src {allowed}" if allowed else "") + ("; connect-src 'self'" if live else "")


def _file(name: str) -> str:
    return (resources.files("selftrain.report") / name).read_text(encoding="utf-8")


def _visible(value: Any) -> Any:
    """Control characters of untrusted text as a visible sign; None as nothing."""
    if value is None:
        return ""
    return wording.visible(value) if type(value) is str else value
