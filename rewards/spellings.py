"""Tables of `answer_text`: what characters and commands are spelt as. Data, no rules."""

# ruff: noqa: RUF001  # characters that look like others are what this file is about

from __future__ import annotations


def word_set(line: str) -> frozenset[str]:
    """The words of a line."""
    return frozenset(line.split())


def table(lines: str) -> dict[str, str]:
    """Each line "a b c -> x" gives a, b and c the value x; a value that ends in a letter gets a
    space, which a LaTeX command needs behind it."""
    entries: dict[str, str] = {}
    for line in lines.strip().splitlines():
        names, _, value = line.partition("->")
        value = value.strip()
        is_command = value.startswith("\\") and value[-1:].isalpha()
        entries.update(dict.fromkeys(names.split(), f"{value} " if is_command else value))
    return entries


GREEK = word_set(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega"
)
CAPITAL_GREEK = word_set("Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega")
FUNCTIONS = word_set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh ln log lg exp"
)
OTHER_FUNCTIONS = word_set("sqrt max min gcd lcm det")

RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢ", "0123456789+-()ni", strict=True))
ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}
NARROW_SPACES = dict.fromkeys("\u00a0\u202f\u2007\u2008\u2009\u200a", "\\,")
CHARACTERS = NARROW_SPACES | table(
    r"""
    ‐ ‑ ‒ – — − ﹣ － -> -
    ‘ ’ ‛ ʼ ′ -> '
    “ ” „ « » ″ -> "
    · ⋅ ∙ • -> \cdot
    × ✕ -> \times
    ÷ -> \div
    ⁄ ∕ -> /
    ± -> \pm
    ∓ -> \mp
    ≤ ⩽ ≦ -> \le
    ≥ ⩾ ≧ -> \ge
    ≠ -> \ne
    ≈ ≃ -> \approx
    ∞ -> \infty
    ∅ ⌀ -> \emptyset
    ∪ -> \cup
    ∩ -> \cap
    ∈ -> \in
    ∉ -> \notin
    ∖ -> \setminus
    ℝ -> \mathbb{R}
    ℤ -> \mathbb{Z}
    ℕ -> \mathbb{N}
    ℚ -> \mathbb{Q}
    ℂ -> \mathbb{C}
    ° º ˚ -> ^\circ
    ℃ -> ^\circ C
    ℉ -> ^\circ F
    ∘ -> \circ
    ∆ -> \Delta
    … ⋯ -> ...
    ∨ -> \lor
    ∧ -> \land
    ∶ -> :
    ∣ -> |
    ⌊ -> \lfloor
    ⌋ -> \rfloor
    ⌈ -> \lceil
    ⌉ -> \rceil
    ⟨ -> \langle
    ⟩ -> \rangle
    ∑ -> \sum
    ∏ -> \prod
    ∫ -> \int
    → -> \to
    。 -> .
    、 -> ,
    ！ ✓ ✔ ✅ ->
    """
)
"""What Unicode's own compatibility forms do not give, or give differently."""

SYNONYMS = table(
    r"""
    dfrac tfrac cfrac -> \frac
    leq leqslant leqq -> \le
    geq geqslant geqq -> \ge
    neq -> \ne
    lt -> <
    gt -> >
    ast -> *
    cdotp -> \cdot
    colon -> :
    doteq -> =
    mid lvert rvert vert -> |
    lbrace -> \{
    rbrace -> \}
    lbrack -> [
    rbrack -> ]
    lparen -> (
    rparen -> )
    ldots dots cdots dotsc dotsb -> ...
    varnothing -> \emptyset
    varphi -> \phi
    varepsilon -> \epsilon
    vartheta -> \theta
    varrho -> \rho
    imath -> i
    textdollar dollar -> \$
    pounds -> £
    euro -> €
    cent textcent -> ¢
    yen -> ¥
    wedge -> \land
    vee -> \lor
    backslash smallsetminus -> \setminus
    thickapprox simeq -> \approx
    left right middle displaystyle textstyle limits nolimits big Big bigg Bigg bigl bigr ->
    Bigl Bigr biggl biggr Biggl Biggr bigm ->
    """
) | {
    **dict.fromkeys(("degree", "textdegree", "deg"), "^\\circ "),
    **dict.fromkeys(("quad", "qquad"), ", "),  # x = 7 \quad y = 8
    **dict.fromkeys(
        word_set(
            "tiny small normalsize large Large LARGE huge Huge bf it rm sf tt em bfseries itshape "
            "thinspace enspace hfill centering"
        ),
        " ",
    ),
}
"""Commands for other commands; sizes, fonts and spaces as a space."""

MATH_FONTS = word_set(
    "mathbf boldsymbol bm mathsf mathtt mathit mathnormal ensuremath underline boxed fbox "
    "framebox mathop mathord smash uline pmb underbrace overbrace"
)
TEXT_FONTS = word_set(
    "text textbf textit textrm texttt textsf textnormal mbox hbox emph textsc textup mathrm "
    "operatorname"
)
COLOURED = word_set("textcolor colorbox")  # \textcolor{blue}{12}
DROPPED = word_set("color hspace vspace phantom hphantom tag label kern")
