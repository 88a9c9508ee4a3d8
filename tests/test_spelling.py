"""Code and documentation have American spelling."""

import re
from itertools import chain

FOLDERS = ("analysis", "bench", "docs", "figures", "landscape", "ncsam", "studies", "tests")
BRITISH = re.compile(
    r"""
    \w*(?:labell(?!eft)|modell|travell|fulfil(?!l)|whilst|colour|behaviour|favour|neighbour)\w*
    | (?<![a-z])(?:grey|centre|catalogue|licence|programme|artefact|towards|afterwards|practise|sceptic)(?![a-z])
    | \w*(?:memor|normal|real|recogn|optim|initial|general|minim|maxim|summar|organ|visual|regular|character|parametr
        |discret|vector|symmetr|orthogonal|linear|quant|util|synchron|random|standard|final|local|penal|serial
        )is(?:e|ed|es|ing|ation|ations|er|ers)(?![a-z])\w*
    | (?<![a-z])analys(?:e|ed|ing)(?![a-z])
    """,
    re.VERBOSE | re.IGNORECASE,
)
OF_EARLIER_VERSIONS = ("realised_rate", "realised_noise_rate")
"""Names that stored results and users' code hold."""


def british_words(text):
    # each word once: the search for one goes back and forth
    words = set(re.findall(r"\w+", text))
    found = {match.group() for word in words for match in BRITISH.finditer(word)}
    return {word for word in found if not word.endswith(OF_EARLIER_VERSIONS)}


def test_british_words_are_found():
    text = "the neighbour's behaviour, memorised; realised_rate; a normalised_image towards the centre; analysis, size"
    assert british_words(text) == {
        *("neighbour", "behaviour", "memorised", "normalised_image", "towards", "centre"),
    }


def test_words_are_spelled_the_american_way(pytestconfig):
    root = pytestconfig.rootpath
    suffixes = (".py", ".md", ".toml", ".jinja")
    files = chain(root.glob("*.md"), *((root / folder).rglob("*.*") for folder in FOLDERS))
    texts = {
        path: path.read_text()
        for path in files
        if path.suffix in suffixes and path.name != "test_spelling.py"
    }
    assert {path.name: words for path, text in texts.items() if (words := british_words(text))} == {}
