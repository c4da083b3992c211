"""Texts of mails: each language has all of them, with the same names to replace, and a locale chooses one."""

import re
from dataclasses import asdict

import pytest

from scheduler.rules.owners import TEXTS, texts_for

A_NAME = re.compile(r"{(\w+)")


def names(language: str) -> dict[str, object]:
    texts = asdict(TEXTS[language])
    causes = texts.pop("disabled_causes")
    return {name: sorted(A_NAME.findall(text)) for name, text in texts.items()} | {"causes": sorted(causes)}


@pytest.mark.parametrize("language", TEXTS)
def test_language_has_all_texts_of_english(language: str) -> None:
    assert names(language) == names("en")
    texts = TEXTS[language]
    assert all(len(subject.splitlines()) == 1 for subject in (texts.invitation_subject, texts.disabled_subject))


@pytest.mark.parametrize(
    ("locale", "language"),
    [(None, "en"), ("en-GB", "en"), ("de", "de"), ("de-AT", "de"), ("DE_ch", "de"), ("sk-SK", "en"), ("den", "en")],
)
def test_locale_chooses_the_language(locale: str | None, language: str) -> None:
    assert texts_for(locale) is TEXTS[language]
