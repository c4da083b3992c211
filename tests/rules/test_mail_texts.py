"""Texts of mails: each language has all of them, with the same names to replace, and a locale chooses one."""

from dataclasses import asdict
from string import Formatter

import pytest

from scheduler.rules.owners import TEXTS, texts_for


def names(language: str) -> dict[str, object]:
    texts = asdict(TEXTS[language])
    causes = texts.pop("disabled_causes")
    replaced = {name: sorted(each for _, each, _, _ in Formatter().parse(text) if each) for name, text in texts.items()}
    return replaced | {"causes": sorted(causes)}


@pytest.mark.parametrize("language", TEXTS)
def test_language_has_all_texts_of_english(language: str) -> None:
    assert names(language) == names("en")
    texts = TEXTS[language]
    assert all(len(subject.splitlines()) == 1 for subject in (texts.invitation_subject, texts.disabled_subject))


@pytest.mark.parametrize(
    ("locale", "language"),
    [(None, "en"), ("en-GB", "en"), ("de", "de"), ("de-AT", "de"), ("DE_ch", "de"), ("xx-SK", "en"), ("den", "en")],
)
def test_locale_chooses_the_language(locale: str | None, language: str) -> None:
    assert texts_for(locale) is TEXTS[language]
