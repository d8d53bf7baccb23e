"""The pages for people say something of all that people meet."""

import re
from pathlib import Path

from imagewright.api.reason import Reason

DOCS = Path(__file__).parents[2] / "docs"
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def paragraphs(page: str) -> dict[str, str]:
    """What stands under each heading of the third level."""
    parts = re.split(r"^### (\S+)\n", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]
    return {
        name: text.partition("\n#")[0].strip()
        for name, text in zip(*[iter(parts)] * 2, strict=True)
    }


def anchors(page: Path) -> set[str]:
    """What a link into a page may point to."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_reason_has_its_paragraph_and_no_other_has_one() -> None:
    told = paragraphs("troubleshooting.md")
    assert set(told) == set(Reason)
    assert not [reason for reason, text in told.items() if len(text) < 40]


def test_every_link_between_the_pages_leads_somewhere() -> None:
    broken = [
        f"{page.name}: {target}#{anchor}"
        for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
        for target, anchor in LINK.findall(page.read_text())
        if not (there := (page.parent / target if target else page)).exists()
        or (anchor and there.suffix == ".md" and anchor not in anchors(there))
    ]
    assert broken == []
