"""What `make mutation` found, as a table and a list: `tests/mutation.md`.

A mutant is a change of one operator, number, comparison, name or text. One that changes a text alone, such as the name
of an argument in an error, is counted apart.
"""

import collections
import difflib
import io
import json
import pathlib
import re
import tokenize

from mutmut.mutation.diff_apply import get_diff_for_mutant

ROOT = pathlib.Path(__file__).parent.parent
REPORT = ROOT / "tests" / "mutation.md"
NOTICED, SURVIVED, NO_TEST, TEXT, NOT_RUN = KINDS = "noticed", "survived", "no test", "text", "not run"
# Of mutmut: the tests passed, no test calls the function, not tried. All other codes say that a test failed.
CODES = {0: SURVIVED, 33: NO_TEST, None: NOT_RUN}
# Why no test can notice a mutant, by what it takes away and puts in place, and by the line; the first that fits.
REASONS = {
    "a dtype: the values are the same without it": (r'"\w+"|dtype.*|xp\.integer', r"None|", r"cast\("),
    "a name, a hint or a message in the text of an error": (
        r"""["'].*["']|(, )?(hint|message)( = hint)?( ,)?""",
        r"None|",
        r"_checks?\.|check_|hint|require\(",
    ),
    "a check of tensors, which no test of NumPy alone reaches": (r".*", r".*", r"require\("),
    "bounds that a later check has, too": (r".*", r".*", r"^replica = .*REPLICAS"),
    "`strict` of a `zip`, whose arguments are of one length": (r".*", r".*", r"strict="),
    "one of several arrays, all of one framework": (r".*", r".*", r"_backend\.(namespace|is_\w+)\("),
    "a short cut: the long way gives the same": (r".*", r".*(and False|or True).*|None", r".*"),
    "a comparison that differs at one value alone": (r"[<>]=?", r"[<>]=?", r".*"),
    "a number where a mask hides it": (r"[\d.]+|\*|\+", r"[\d.]+|/|-", r"where\(|0\.0 [*/]|\b0 \*|math\.nan"),
    "a size of a reshape: any below 0 is the open one": (r"-?1", r"-?2|\+", r"reshape\(|_joined\("),
}
OTHER = "none of these reasons: mostly other short cuts, and draws of more than is used"


def changed(name):
    """The code that a mutant takes away, and that in its place."""
    lines = get_diff_for_mutant(name).splitlines()[2:]
    return [" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"]


def tokens_of(code, texts=True):
    """The tokens of a line of code, on request with every text alike."""
    tokens = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            tokens.append('""' if token.type == tokenize.STRING and not texts else token.string)
    except (tokenize.TokenError, IndentationError):
        tokens.append("...")
    return [token for token in tokens if token.strip()]


def readable(name):
    """The function of a mutant, as it is called in the code."""
    function = re.sub(r"__mutmut_\d+$", "", name.rpartition(".")[2]).removeprefix("x_")
    return function.removeprefix("xǁ").replace("ǁ", ".")


def reason(old, new):
    """Why no test notices a change."""
    before, after = tokens_of(old), tokens_of(new)
    steps = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    parts = [(before[a:b], after[c:d]) for kind, a, b, c, d in steps if kind != "equal"]
    removed, added = (" ".join(token for part in parts for token in part[i]) for i in (0, 1))
    for why, (taken, put, line) in REASONS.items():
        if re.fullmatch(taken, removed) and re.fullmatch(put, added) and re.search(line, old):
            return why
    return OTHER


def found():
    """What became of the mutants of each module, and those that no test noticed, by reason."""
    counts, unnoticed = collections.defaultdict(collections.Counter), collections.defaultdict(list)
    for path in sorted(ROOT.glob("mutants/kmix/**/*.meta")):
        module = str(path.relative_to(ROOT / "mutants")).removesuffix(".meta")
        for name, code in json.loads(path.read_text())["exit_code_by_key"].items():
            kind = CODES.get(code, NOTICED)
            if kind in (SURVIVED, NO_TEST):
                old, new = changed(name)
                if tokens_of(old, texts=False) == tokens_of(new, texts=False):
                    kind = TEXT
                else:
                    change = f"- `{module}`, `{readable(name)}` ({kind}): `{old}` became `{new}`"
                    unnoticed[reason(old, new)].append(change)
            counts[module][kind] += 1
    return counts, unnoticed


def main():
    """Write the report, and print its first line."""
    counts, unnoticed = found()
    total = sum(counts.values(), collections.Counter())
    rows = [["module", *KINDS], ["---"] * (1 + len(KINDS))]
    for module, kinds in [*counts.items(), ("all", total)]:
        rows.append([f"`{module}`" if module in counts else module, *(str(kinds[kind]) for kind in KINDS)])
    arithmetic = total[NOTICED] + total[SURVIVED] + total[NO_TEST]
    share = f"{total[NOTICED]} of {arithmetic} noticed, {100 * total[NOTICED] / max(arithmetic, 1):.1f} %."
    text = [f"# Mutants\n\nWritten by `make mutation`: {share} Texts are counted apart."]
    text.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    for why in [*REASONS, OTHER]:
        if unnoticed[why]:
            text.append(f"## {why[0].upper()}{why[1:]}: {len(unnoticed[why])}")
            text.append("\n".join(unnoticed[why]))
    REPORT.write_text("\n\n".join(text) + "\n")
    print(share)


if __name__ == "__main__":
    main()
