r"""What the fuzzer starts from: texts and words for each target, and texts that every target gets as they are."""

from __future__ import annotations

SEEDS: dict[str, tuple[str, ...]] = {
    "calculator": (
        *("1,530 * 20%", "-(2+3)//.5", "<<48/2=25>>25", "a (<<7*6=4", "[ 7 * 6 = 42 ]", "<<1/0=5>>\n"),
        *(
            "1" * 31,
            "9" * 30 + ("*" + "9" * 29) * 2,
            "(" * 25 + "1",
            "1" + "+1" * 60,
            "<<" + "1" * 205 + "=",
            "1".ljust(205),
        ),
    ),
    "annotation": (
        "so 48/2 = <<48/2=24.0>>24 and <<24=24>>",
        "[ 2 * 3 = 6 ] 6",
        "31 girls x 2 boys/girl = 62 boys",
        "He paid $400,000 x 6/100 = $24,000. 3+2(22)=47.0 minutes",
        "350 / 1400 * 100% = 25%; (1+2)(3-4) = -3",
        "   - 75 plants × £8 per plant = £600",
        "$3 - $5 = -$2, 12÷4=3, T = 193 - 139 = 54",
    ),
    "numeric": (
        "6*7=<<6*7=42>>42\n#### $1,234.50",
        "The answer is \\boxed{\\frac{1}{2}}.",
        "answer: 1 1/2\nQuestion: 7?",
        "So \u2212$5 is it, at 50% [ 1 + 1 = 2 ] the 3rd time: 4 - 9 = -5",
        "#### 2 3/4 pens",
        ".5/.25",
        f"#### 1/{2**110}",
    ),
    "choice": (
        "#### (b)",
        "The answer is (C), not option D: A pen. I think",
        "\\boxed{\\text{B}} or **C**",
        "answer: B and D\n\nQuestion: A?",
        "x=\\boxed{\\left\\{1\\right\\}} 7 ####",
    ),
    "symbolic": (
        "\\boxed{\\frac{1}{2}}",
        "The answer is 5, since $x=2$ and \\(y\\) or $$z$$ or \\[w\\]",
        "#### $x^2+1$.\nmore",
        "Question: and $z$?",
        "#### 7",
    ),
    "prompts": ("Tom-boy pays $5+3=$<<5+3=8>>8\n#### -8", "a  / b = <<24=24>> 1,000.50!\n\nSo", "[ 5 + 3 = 8 ] 8"),
    "reading": (
        '{"q": "2+2?", "a": "4"}\n{"q": 7}\n',
        '[{"q": "2+2?"}, 5]',
        'q,a\n2+2?,"4\n5"\n',
        "\ufeffq\n7\n",
    ),
}

_ANSWERS = ("#### ", "\\boxed{", "}", "answer is ", "answer:", "\nQuestion:", "\n", ".", "$", "\\$", "\\(", "\\)")
WORDS: dict[str, tuple[str, ...]] = {
    "calculator": ("<<", ">>", "[ ", " ]", "=", "//", "%", "1,000", ".5", "(", ")", "-", "1/0", "\n", "9999999999"),
    "annotation": (
        *("<<", ">>", "<<24=24>>", "[ 1 + 1 = 2 ]", " = ", "×", "÷", "−", "·", "$", "£", "%", "1,000", "x", "//", "/"),
        *("(", ")", "^", "√", "1+1=2", "50%*2=1", "25%", " girls", "boys/girl", "-", "\n", "."),
    ),
    "numeric": (*_ANSWERS, "<<1+1=2>>", "[ 1 + 1 = 2 ]", "\\frac{1}{2}", "1,234", "1 1/2", "\u2212", "%", " equals -7"),
    "choice": (*_ANSWERS, "(B)", "[C]", "D)", "option ", "choice B", " and C", ", or D", "A pen", "\\text{", "**", "="),
    "symbolic": (*_ANSWERS, "$x$", "$$", "\\[", "\\]", "\\{", "\\}", "\\\\", "\\frac{1}{2}", "^{", "7", "x"),
    "prompts": ("<<1+1=2>>", "[ 1 + 1 = 2 ]", "<<24=24>>", "\n####", "\n", "$5", "-", "+", "*", "=", "  ", "!"),
    "reading": ('{"q": "', '"}', "\n", '"', ",", "[", "]", "{", "}", "q,a\n", ":", "\\ud800", "NaN", "1e999", "\ufeff"),
}

# Given as they are: too long for a fuzzer's corpus, or not to be written as UTF-8.
HOSTILE: dict[str, str] = {
    "nothing": "",
    "unicode digits": "\u0661+\u0662 = \uff13",
    "a million digits": "9" * 10**6,
    "power tower": "9**9**9",
    "nested": "(" * 10**5 + "1" + ")" * 10**5,
    "braces": "\\boxed{" * 10**4 + "}" * 10**4,
    "brackets": "[" * 10**5 + "]" * 10**5,
    "NUL": "#### 1\x002",
    "half a pair": "\ud800 = \udc00",
    "right to left": "\u202e24=2/84\u202c \u200f#### \u200f42\u200e",
    "a thousand marks": "#### " * 1000,
    "a thousand annotations": "<<1+1=" * 1000 + ">>" * 1000,
    "a thousand answers": "answer is 7, " * 1000,
    "a thousand equations": "1 + 1 = 2; " * 1000,
    "spaces": " " * 10**5 + "=" + " " * 10**5,
    "line ends": "1 + 1 = 2\r\x0b\x0c\x1c\x85\u2028\u2029" * 1000,
}
