//! Archives described as text, assembled byte by byte: also those no tool would write.
//!
//! ```text
//! file PATH [key=value]... a regular file; likewise dir, fifo
//! symlink PATH TARGET      likewise hardlink
//! char PATH 1:3            likewise block
//! type X PATH              any type flag
//! pax KEY=VALUE            a record for the next entry; several lines, one header
//! pax-raw BYTES            the whole extended header of the next entry
//! global KEY=VALUE         a global extended header
//! gnu-path PATH            a GNU long name for the next entry; likewise gnu-link
//! raw BYTES                bytes as they are
//! zeros N                  N zero bytes
//! cut N                    the last N bytes go (the two final blocks count)
//! ```
//!
//! Keys of entries: mode, uid, gid, mtime, size (what the header claims), data, repeat (times
//! the data), prefix, magic (gnu or v7), checksum=wrong. Words are escaped with `%xx`.

use super::escape::unescape;

/// Assembles an archive from its description.
pub(crate) fn assemble(text: &str) -> Vec<u8> {
    let mut tar = Vec::new();
    let mut records = Vec::new();
    let mut cut = 0;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "pax" => records.extend(record(words[1])),
            "pax-raw" => records.extend(unescape(words[1])),
            "global" => member(&mut tar, &Header::new(b'g', "global"), &record(words[1])),
            "gnu-path" | "gnu-link" => {
                let flag = if words[0] == "gnu-path" { b'L' } else { b'K' };
                let mut name = unescape(words[1]);
                name.push(0);
                member(&mut tar, &Header::new(flag, "././@LongLink"), &name);
            }
            "raw" => tar.extend(unescape(words[1])),
            "zeros" => tar.resize(tar.len() + words[1].parse::<usize>().unwrap(), 0),
            "cut" => cut = words[1].parse().unwrap(),
            _ => {
                let records = std::mem::take(&mut records);
                if !records.is_empty() {
                    member(&mut tar, &Header::new(b'x', "PaxHeaders/x"), &records);
                }
                entry(&mut tar, &words);
            }
        }
    }
    tar.resize(tar.len() + 1024 - cut, 0);
    tar
}

/// A header before it is bytes.
struct Header {
    flag: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    device: (u64, u64),
    keys: Vec<(String, String)>,
}

impl Header {
    fn new(flag: u8, name: &str) -> Self {
        Self {
            flag,
            name: unescape(name),
            link: Vec::new(),
            device: (0, 0),
            keys: Vec::new(),
        }
    }

    fn key(&self, name: &str) -> Option<&str> {
        let found = self.keys.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        match self
            .key(name)
            .map(|text| text.strip_prefix("0o").ok_or(text))
        {
            None => otherwise,
            Some(Ok(octal)) => u64::from_str_radix(octal, 8).unwrap(),
            Some(Err(decimal)) => decimal.parse().unwrap(),
        }
    }
}

fn entry(tar: &mut Vec<u8>, words: &[&str]) {
    let kind = words[0];
    let (flag, words) = match kind {
        "file" => (b'0', &words[1..]),
        "hardlink" => (b'1', &words[1..]),
        "symlink" => (b'2', &words[1..]),
        "char" => (b'3', &words[1..]),
        "block" => (b'4', &words[1..]),
        "dir" => (b'5', &words[1..]),
        "fifo" => (b'6', &words[1..]),
        "type" => (words[1].as_bytes()[0], &words[2..]),
        other => panic!("unknown word {other}"),
    };
    let mut header = Header::new(flag, words[0]);
    let mut rest = &words[1..];
    match kind {
        "hardlink" | "symlink" => {
            header.link = unescape(rest[0]);
            rest = &rest[1..];
        }
        "char" | "block" => {
            let (major, minor) = rest[0].split_once(':').unwrap();
            header.device = (major.parse().unwrap(), minor.parse().unwrap());
            rest = &rest[1..];
        }
        _ => {}
    }
    header.keys = rest
        .iter()
        .map(|word| {
            let (key, value) = word.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        })
        .collect();
    let repeat = usize::try_from(header.number("repeat", 1)).unwrap();
    let data = unescape(header.key("data").unwrap_or("")).repeat(repeat);
    member(tar, &header, &data);
}

fn member(tar: &mut Vec<u8>, header: &Header, data: &[u8]) {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let clipped = |bytes: &[u8]| bytes[..bytes.len().min(100)].to_vec();
    put(0, &clipped(&header.name));
    put(100, &number(8, header.number("mode", 0o644)));
    put(108, &number(8, header.number("uid", 0)));
    put(116, &number(8, header.number("gid", 0)));
    put(124, &number(12, header.number("size", data.len() as u64)));
    put(136, &number(12, header.number("mtime", 100)));
    put(156, &[header.flag]);
    put(157, &clipped(&header.link));
    match header.key("magic") {
        None => put(257, b"ustar\x0000"),
        Some("gnu") => put(257, b"ustar  \0"),
        _ => {}
    }
    put(329, &number(8, header.device.0));
    put(337, &number(8, header.device.1));
    put(345, &unescape(header.key("prefix").unwrap_or("")));
    put(148, b"        ");
    let mut sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    if header.key("checksum").is_some() {
        sum += 1;
    }
    block[148..155].copy_from_slice(&number(7, sum));
    tar.extend(block);
    tar.extend(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// Writes a number in octal, or in base 256 where octal is too short.
fn number(width: usize, value: u64) -> Vec<u8> {
    let text = format!("{value:0width$o}\0", width = width - 1);
    if text.len() == width {
        return text.into_bytes();
    }
    let mut field = vec![0; width];
    field[0] = 0x80;
    let bytes = value.to_be_bytes();
    let short = &bytes[bytes.len() - (width - 1).min(8)..];
    field[width - short.len()..].copy_from_slice(short);
    field
}

fn record(word: &str) -> Vec<u8> {
    let body = [unescape(word), b"\n".to_vec()].concat();
    let mut length = body.len() + 2;
    while length != body.len() + 1 + length.to_string().len() {
        length += 1;
    }
    [format!("{length} ").into_bytes(), body].concat()
}
