use std::fmt;

/// The first line and the header lines of a request or a response, as they were on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    first_line: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// Reads a head whose last byte ends the blank line.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once(':') else { panic!("header line without a colon: {line:?}") };
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Self { first_line, fields }
    }

    /// The request line or the status line.
    pub fn first_line(&self) -> &str {
        &self.first_line
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        let code = self.first_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("not a status line: {:?}", self.first_line))
    }

    /// The reason phrase of a response.
    pub fn reason(&self) -> &str {
        self.first_line.splitn(3, ' ').nth(2).unwrap_or_default()
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.first_line.split(' ').next().unwrap_or_default()
    }

    /// The target of a request: path and query as sent.
    pub fn path(&self) -> &str {
        self.first_line.split(' ').nth(1).unwrap_or_default()
    }

    /// The first value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a header in order.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All header lines in order.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// Whether the body comes in chunks.
    pub fn is_chunked(&self) -> bool {
        self.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    /// The announced length of the body.
    pub fn content_length(&self) -> Option<usize> {
        self.header("Content-Length").map(|value| value.parse().unwrap())
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.first_line)?;
        self.fields.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))
    }
}
