"""BuildKit's comma separated k=v language, and what is wrong with a text that is not in it.

One line of CSV, each field a key and a value. A field that begins with a double quote ends with
one and may hold commas; inside, a quote is written twice; elsewhere a quote is an error.
Sources: Go encoding/csv and strconv, tonistiigi/go-csvvalue, buildx util/buildflags.
"""

from collections.abc import Iterable

from kitcache.errors import UsageError
from kitcache.masking import HIDDEN, hide_password

Pairs = tuple[tuple[str, str], ...]

_LONGEST_WORD = 60
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
SECRETS = frozenset(("token", "ghtoken", "secret_access_key", "session_token"))


def split_fields(text: str) -> tuple[str, ...]:
    """The fields of one line of CSV, unquoted. One newline at the end of the line is forgiven.

    Raises UsageError where Go's reader refuses a line; columns count bytes, from 1.
    """
    line = text.removesuffix("\n") if not text.endswith("\r\n") else text[:-2]
    if not line:
        raise UsageError("the value is empty")
    fields = []
    at = 0
    while at <= len(line):
        field, at = _quoted(line, at + 1) if line.startswith('"', at) else _bare(line, at)
        fields.append(field)
    return tuple(fields)


def _bare(line: str, start: int) -> tuple[str, int]:
    """The field that starts here, and where the next one starts: past the end after the last."""
    comma = line.find(",", start)
    end = len(line) if comma < 0 else comma
    quote = line.find('"', start, end)
    if quote >= 0:
        raise _parse_error(line, quote, 'a " inside of a field that does not begin with one')
    return line[start:end], end + 1


def _quoted(line: str, start: int) -> tuple[str, int]:
    parts = []
    while True:
        quote = line.find('"', start)
        if quote < 0:
            raise _parse_error(line, len(line), 'the " that ends the field is missing')
        parts.append(line[start:quote])
        start = quote + 1
        match line[start : start + 1]:
            case '"':
                parts.append('"')
                start += 1
            case "," | "":
                return "".join(parts), start + 1
            case _:
                raise _parse_error(line, quote, 'text follows the " that ends the field')


def _parse_error(line: str, at: int, problem: str) -> UsageError:
    column = len(line[:at].encode(errors="surrogatepass")) + 1
    return UsageError(f"cannot be read at column {column}: {problem}")


def parse_attributes(text: str) -> Pairs:
    """The keys, in lower case, and the values of k=v,k=v, in order; a key may come twice.

    Raises UsageError, which does not repeat what may be a secret.
    """
    pairs: list[tuple[str, str]] = []
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            # An unquoted comma in a secret: this is its second half.
            is_secret = bool(pairs) and pairs[-1][0] in SECRETS
            raise UsageError(f"invalid value {HIDDEN if is_secret else field}")
        pairs.append((key.lower(), value))
    return tuple(pairs)


def join_attributes(pairs: Iterable[tuple[str, str]]) -> str:
    """The line that parse_attributes reads as these pairs. No key may hold an equals sign."""
    return ",".join(_quote(f"{key}={value}") for key, value in pairs)


def _quote(field: str) -> str:
    if not any(character in field for character in ',"\n\r'):
        return field
    return '"' + field.replace('"', '""') + '"'


def parse_bool(text: str, what: str) -> bool:
    """What Go's ParseBool takes for a truth value.

    what: the beginning of the sentence when it is none, such as "failed to parse reset attribute".
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise UsageError(
        f"{what}: {quote_go(text)} is neither true nor false", hints=("write true or false",)
    )


def is_true(text: str) -> bool:
    """True where Go's ParseBool says that the text is true; all else is not."""
    return text in _TRUE


def is_false(text: str) -> bool:
    """True where Go's ParseBool says that the text is false; all else is not."""
    return text in _FALSE


def quote_go(text: str) -> str:
    """The text in double quotes, as Go's %q writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def suggest(word: str, known: Iterable[str]) -> str | None:
    """The known word that this one was probably meant to be."""
    from difflib import get_close_matches  # noqa: PLC0415 - seldom needed

    return next(iter(get_close_matches(word.strip()[:_LONGEST_WORD], list(known), n=1)), None)


def warn_unknown(pairs: Pairs, known: Iterable[str], what: str) -> tuple[str, ...]:
    """A sentence for each key that is not known, and for each that comes twice.

    what: whose attributes these are, such as "local cache export".
    """
    words = tuple(known)
    seen: set[str] = set()
    warnings = []
    for key, _ in pairs:
        if key in seen:
            warnings.append(f"{what}: attribute {key} is given twice, the last one counts")
        elif key not in words:
            meant = suggest(key, words)
            hint = f"did you mean {meant}?" if meant else f"known: {', '.join(words)}"
            warnings.append(f"{what}: unknown attribute {quote_go(key)}; {hint}")
        seen.add(key)
    return tuple(warnings)


def show_pairs(pairs: Pairs) -> str:
    """The pairs for a repr or a message, without the values of secrets and passwords in URLs."""
    shown = ((k, HIDDEN if k in SECRETS and v else hide_password(v)) for k, v in pairs)
    return join_attributes(shown)


def check_sent(sent: object) -> None:
    """Raise UsageError where the attributes of a value are not Pairs."""
    is_well_formed = isinstance(sent, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        for pair in sent
    )
    if not is_well_formed:
        raise UsageError(
            "sent is not a tuple of pairs of texts", hints=('write sent=(("mode", "max"),)',)
        )
