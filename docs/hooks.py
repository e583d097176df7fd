"""What mkdocs does beside building pages (named in mkdocs.yml): adds the reference, and files that pages link to.

A page may link to a file of the repository that lies outside docs/ (`../../tests/golden/answer_vectors.json`), as is
right where the page is read in the repository. The site gets a copy of that file under `repository/`, and the link goes
there.
A link to a file that is not there, and a page that would load something from another host, end a strict build.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

import reference  # beside this file: mkdocs imports hooks from their own folder
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?:\.\./)+[^)#\s]+(?=[)#])")
FOREIGN = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
log = logging.getLogger("mkdocs.hooks.selftrain")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the reference pages, and the files outside docs/ that pages link to."""
    for file in list(files.documentation_pages()):
        for target in LINK.findall(file.content_string):
            outside = _outside(file.src_uri, target)
            if outside is None:
                continue
            if not (ROOT / outside).is_file():
                log.warning("%s links to %s, which is not there", file.src_uri, outside)
            elif files.get_file_from_path(f"repository/{outside}") is None:
                files.append(File.generated(config, f"repository/{outside}", abs_src_path=str(ROOT / outside)))
    for place, text in reference.pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of docs/ to the copies in the site."""

    def inside(match: re.Match[str]) -> str:
        outside = _outside(page.file.src_uri, match[0])
        if outside is None:
            return match[0]
        return posixpath.relpath(f"repository/{outside}", posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(inside, markdown)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Warn of what a reader's browser would load from elsewhere."""
    for tag in FOREIGN.findall(output):
        log.warning("%s loads from another host: %s", page.file.src_uri, tag[:200])
    return output


def _outside(page: str, target: str) -> str | None:
    """A link's target as a path from the repository's root, or None where it stays inside docs/."""
    place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if place.startswith(("docs/", "../")) else place
