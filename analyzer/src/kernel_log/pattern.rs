//! The language in which `analyzer/explain/*.toml` describes lines of the kernel's log.
//!
//! A pattern is literal text with fields: `{name}` is a word, `{name:kind}` something else (see [`Kind`]), `{_}` a
//! field that nobody asks about, `{{` a brace. It must fit the whole message. Fields take as little as possible.
//! Matching remembers what has failed, so that no line makes it take longer than tokens × length².

use std::net::IpAddr;

/// Longest name of an interface, as `IFNAMSIZ` of the kernel without its final zero.
const MAX_DEV: usize = 15;

/// What a field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything without white space.
    Word,
    /// Decimal digits, perhaps after a minus sign.
    Number,
    /// Hexadecimal digits.
    Hex,
    /// An IPv4 or IPv6 address without brackets.
    Ip,
    /// The name of an interface, as `dev_valid_name` of the kernel has it.
    Dev,
    /// Anything, but not nothing.
    Text,
    /// What is left of the message, perhaps nothing; only at the end.
    Rest,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "word" => Self::Word,
            "number" => Self::Number,
            "hex" => Self::Hex,
            "ip" => Self::Ip,
            "dev" => Self::Dev,
            "text" => Self::Text,
            "rest" => Self::Rest,
            _ => return None,
        })
    }

    /// Whether a value may go on after this character.
    fn goes_on(self, c: char) -> bool {
        match self {
            Self::Word => !c.is_whitespace(),
            Self::Number => c.is_ascii_digit() || c == '-',
            Self::Hex => c.is_ascii_hexdigit(),
            Self::Ip => c.is_ascii_hexdigit() || matches!(c, ':' | '.'),
            Self::Dev => !c.is_whitespace() && !matches!(c, ':' | '/'),
            Self::Text | Self::Rest => true,
        }
    }

    /// Whether this is a whole value, all of whose characters may be in one.
    fn is_whole(self, value: &str) -> bool {
        match self {
            Self::Number => {
                value.strip_prefix('-').unwrap_or(value).bytes().all(|b| b.is_ascii_digit()) && value != "-"
            }
            Self::Ip => value.parse::<IpAddr>().is_ok(),
            Self::Dev => value.len() <= MAX_DEV && value != "." && value != "..",
            Self::Word | Self::Hex | Self::Text | Self::Rest => true,
        }
    }

    /// Whether a value of this kind means nothing but itself to a shell, whoever chose it.
    pub fn is_inert(self, value: &str) -> bool {
        match self {
            Self::Number | Self::Hex | Self::Ip => true,
            Self::Dev => {
                value.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
            }
            Self::Word | Self::Text | Self::Rest => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(String),
    Field { name: String, kind: Kind },
}

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `{` without `}`.
    #[error("a field of `{0}` does not end")]
    Open(String),
    /// A kind that does not exist.
    #[error("`{0}` is no kind of field")]
    Kind(String),
    /// A field of kind `rest` that something follows, or a field right behind another one.
    #[error("`{0}` has a field whose end nothing tells")]
    Endless(String),
}

/// A pattern that is ready to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
}

/// What a field of a pattern held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture<'a> {
    /// Name of the field.
    pub name: &'a str,
    /// Its kind.
    pub kind: Kind,
    /// What stood there: hostile.
    pub value: &'a str,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`]: the knowledge is wrong, not the line.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut tokens = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('{') {
                literal.push('{');
                rest = after;
                continue;
            }
            let (field, after) = after.split_once('}').ok_or_else(|| PatternError::Open(text.to_owned()))?;
            if literal.is_empty() && !tokens.is_empty() {
                return Err(PatternError::Endless(text.to_owned()));
            }
            if !literal.is_empty() {
                tokens.push(Token::Literal(std::mem::take(&mut literal)));
            }
            let (name, kind) = field.split_once(':').unwrap_or((field, "word"));
            let kind = Kind::named(kind).ok_or_else(|| PatternError::Kind(kind.to_owned()))?;
            if kind == Kind::Rest && !after.is_empty() {
                return Err(PatternError::Endless(text.to_owned()));
            }
            tokens.push(Token::Field { name: name.to_owned(), kind });
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            tokens.push(Token::Literal(literal));
        }
        Ok(Self { tokens })
    }

    /// Names and kinds of the fields that somebody asks about.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.tokens.iter().filter_map(|token| match token {
            Token::Field { name, kind } if name != "_" => Some((name.as_str(), *kind)),
            Token::Field { .. } | Token::Literal(_) => None,
        })
    }

    /// The text that stands in every line.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|token| match token {
            Token::Literal(text) => Some(text.as_str()),
            Token::Field { .. } => None,
        })
    }

    /// What the fields hold, if the pattern fits all of the message.
    pub fn captures<'a>(&'a self, message: &'a str) -> Option<Vec<Capture<'a>>> {
        if !self.literals().all(|literal| message.contains(literal)) {
            return None;
        }
        let mut search = Search { message, failed: vec![false; (self.tokens.len() + 1) * (message.len() + 1)] };
        let mut found = Vec::new();
        search.fits(&self.tokens, 0, &mut found).then(|| {
            found.reverse();
            found
        })
    }
}

struct Search<'a> {
    message: &'a str,
    /// By tokens left and place: no match from there.
    failed: Vec<bool>,
}

impl<'a> Search<'a> {
    /// Whether the tokens fit all of the message from `at` on; what they hold is pushed last first.
    fn fits(&mut self, tokens: &'a [Token], at: usize, found: &mut Vec<Capture<'a>>) -> bool {
        let Some(rest) = self.message.get(at..) else { return false };
        let Some((token, behind)) = tokens.split_first() else { return rest.is_empty() };
        let key = tokens.len() * (self.message.len() + 1) + at;
        if self.failed.get(key).copied().unwrap_or(true) {
            return false;
        }
        let fits = match token {
            Token::Literal(text) => rest.starts_with(text) && self.fits(behind, at + text.len(), found),
            Token::Field { name, kind } => self.fits_field(name, *kind, behind, at, found),
        };
        if let Some(failed) = self.failed.get_mut(key) {
            *failed = !fits;
        }
        fits
    }

    fn fits_field(
        &mut self,
        name: &'a str,
        kind: Kind,
        behind: &'a [Token],
        at: usize,
        found: &mut Vec<Capture<'a>>,
    ) -> bool {
        let message = self.message;
        let rest = message.get(at..).unwrap_or_default();
        let longest = rest.find(|c| !kind.goes_on(c)).unwrap_or(rest.len());
        let ends = rest.char_indices().map(|(n, c)| n + c.len_utf8()).take_while(|end| *end <= longest);
        let ends: Vec<usize> = if kind == Kind::Rest { vec![rest.len()] } else { ends.collect() };
        for end in ends {
            let value = rest.get(..end).unwrap_or_default();
            if kind.is_whole(value) && self.fits(behind, at + end, found) {
                if name != "_" {
                    found.push(Capture { name, kind, value });
                }
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pattern: &str, message: &str) -> Option<Vec<(String, String)>> {
        let pattern = Pattern::parse(pattern).unwrap();
        let found = pattern.captures(message)?;
        Some(found.iter().map(|c| (c.name.to_owned(), c.value.to_owned())).collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())
    }

    #[test]
    fn a_pattern_fits_all_of_a_message_or_none() {
        assert_eq!(held("a {x} b", "a 1 b"), pairs(&[("x", "1")]));
        for no in ["a 1 b ", "xa 1 b", "a  b", "a 1 2 b", ""] {
            assert_eq!(held("a {x} b", no), None, "{no}");
        }
    }

    #[test]
    fn fields_take_as_little_as_they_can() {
        assert_eq!(held("({comm:text}) {rest:rest}", "(a (b) c) d"), pairs(&[("comm", "a (b"), ("rest", "c) d")]));
        assert_eq!(held("{a}:{b:number}", "x:y:7"), pairs(&[("a", "x:y"), ("b", "7")]));
    }

    #[test]
    fn kinds_refuse_what_they_are_not() {
        assert_eq!(held("{n:number}kB", "-12kB"), pairs(&[("n", "-12")]));
        for (pattern, no) in [
            ("{n:number}", "1-2"),
            ("{a:ip}", "10.0.0"),
            ("{d:dev}", "a-name-of-16-byt"),
            ("{h:hex}", "xyz"),
            ("{w}", "a b"),
        ] {
            assert_eq!(held(pattern, no), None, "{pattern} {no}");
        }
        assert_eq!(held("[{a:ip}]:{p:number}", "[fd00::1]:53"), pairs(&[("a", "fd00::1"), ("p", "53")]));
    }

    #[test]
    fn braces_and_nameless_fields_are_no_fields() {
        assert_eq!(held("{{ {_:text} } {x}", "{ 1 2 } y"), pairs(&[("x", "y")]));
    }

    #[test]
    fn a_pattern_that_could_not_end_is_refused() {
        assert_eq!(Pattern::parse("{a:rest} b"), Err(PatternError::Endless("{a:rest} b".to_owned())));
        assert_eq!(Pattern::parse("{a}{b}"), Err(PatternError::Endless("{a}{b}".to_owned())));
        assert_eq!(Pattern::parse("{a"), Err(PatternError::Open("{a".to_owned())));
        assert_eq!(Pattern::parse("{a:b}"), Err(PatternError::Kind("b".to_owned())));
    }

    #[test]
    fn only_what_means_itself_is_inert() {
        assert!(Kind::Dev.is_inert("eth0.100") && Kind::Number.is_inert("7"));
        assert!(!Kind::Dev.is_inert("$(reboot)") && !Kind::Dev.is_inert("-rf") && !Kind::Word.is_inert("eth0"));
    }

    #[test]
    fn a_line_made_to_be_slow_is_not() {
        // each field tried at each place for each other one would not end in anybody's lifetime
        let pattern = Pattern::parse("{a:text}a{b:text}a{c:text}a{d:text}a{e:text}a{f:text}b").unwrap();
        let message = format!("{}ba", "a".repeat(1000));
        assert_eq!(pattern.captures(&message), None);
    }
}
