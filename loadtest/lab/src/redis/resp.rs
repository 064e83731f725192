//! The little of Redis's protocol, RESP2, that it takes to send one command and to read its reply.
//!
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a reply may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a command to the server on `port` and returns its reply as text.
pub(super) async fn call(port: u16, words: &[&str]) -> io::Result<String> {
    let reply = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(&encode(words)).await?;
        read_reply(BufReader::new(stream)).await
    };
    timeout(REPLY_TIMEOUT, reply).await?
}

fn encode(words: &[&str]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    command.into_bytes()
}

/// Reads one reply; arrays, also those within arrays, become the lines of their elements.
async fn read_reply(mut stream: impl AsyncBufRead + Unpin) -> io::Result<String> {
    let mut lines = Vec::new();
    let mut expected: u64 = 1;
    while expected > 0 {
        expected -= 1;
        let mut head = String::new();
        stream.read_line(&mut head).await?;
        let head = head.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let (kind, rest) = head.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            "+" | ":" => lines.push(rest.to_owned()),
            "-" => return Err(io::Error::other(rest)),
            "$" => lines.push(read_bulk(&mut stream, length(rest)?).await?),
            "*" => match length(rest)? {
                Some(elements) => expected += elements,
                None => lines.push(NIL.to_owned()),
            },
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {head}"))),
        }
    }
    Ok(lines.join("\n"))
}

const NIL: &str = "(nil)";

/// A length, which is none where it is -1.
fn length(digits: &str) -> io::Result<Option<u64>> {
    match digits {
        "-1" => Ok(None),
        digits => digits.parse().map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

async fn read_bulk(stream: &mut (impl AsyncBufRead + Unpin), length: Option<u64>) -> io::Result<String> {
    let Some(length) = length else {
        return Ok(NIL.to_owned());
    };
    let mut bulk = Vec::new();
    stream.take(length).read_to_end(&mut bulk).await?;
    let mut end = [0; 2];
    stream.read_exact(&mut end).await?;
    Ok(String::from_utf8_lossy(&bulk).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_its_words() {
        assert_eq!(encode(&["GET", "größe"]), "*2\r\n$3\r\nGET\r\n$7\r\ngröße\r\n".as_bytes());
    }

    #[tokio::test]
    async fn replies_become_text() {
        for (reply, text) in [
            ("+OK\r\n", "OK"),
            (":-3\r\n", "-3"),
            ("$4\r\na\r\nb\r\n", "a\r\nb"),
            ("$0\r\n\r\n", ""),
            ("$-1\r\n", "(nil)"),
            ("*-1\r\n", "(nil)"),
            ("*0\r\n", ""),
            ("*3\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n+b\r\n", "a\n1\n(nil)\nb"),
        ] {
            assert_eq!(read_reply(reply.as_bytes()).await.unwrap(), text, "{reply:?}");
        }
    }

    #[tokio::test]
    async fn what_is_an_error_or_not_a_reply_is_an_error() {
        let error = read_reply("-ERR unknown command\r\n".as_bytes()).await.unwrap_err();
        assert_eq!(error.to_string(), "ERR unknown command");
        for reply in ["", "\r\n", "+OK", "$3\r\na", "$x\r\n", "*2\r\n:1\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(read_reply(reply.as_bytes()).await.is_err(), "{reply:?}");
        }
    }
}
