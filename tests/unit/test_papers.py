"""Readers see the names of the papers, not their codes."""

from __future__ import annotations

import re

import pytest

from ghostgrad.registry.papers import NAMES, name_papers
from ghostgrad.registry.registry import Registry

TEXTS = {
    "002 app. A, fig. 5 (000 fig. 3)": "Ghost app. A, fig. 5 (Ghost (tiny paper) fig. 3)",
    "001 against 004": "LALC against BN-ResNet",
    "within 0.002, 1.001 or 004.5": "within 0.002, 1.001 or 004.5",
    "4,002 repeats": "4,002 repeats",
    "": "",
}


@pytest.mark.parametrize(("text", "named"), TEXTS.items(), ids=TEXTS)
def test_codes_become_names_and_numbers_stay(text, named):
    assert name_papers(text) == named


def test_no_code_is_left_in_the_place_of_an_artifact_or_a_claim():
    registry = Registry()
    sections = [artifact.section for artifact in registry.artifacts.values()]
    sections += [claim.section for claim in registry.claims.values()]
    for section in sections:
        assert not re.search(rf"\b({'|'.join(NAMES)})\b", name_papers(section)), section
