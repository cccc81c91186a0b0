//! Asks the server on this host whether a node can be reached, and prints its report.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::Check;
use crate::{BAD_CONFIG, say};

/// A check takes some round trips of at most five seconds each.
const CHECK_LIMIT: Duration = Duration::from_secs(30);

/// The longest report.
const MAX_ANSWER: u64 = 1 << 20;

/// Prints the report. The exit code is 0 if the node is reached, 1 if not, 2 for wrong arguments.
pub(crate) fn run(asked: &Check) -> ExitCode {
    let address = match asked.address() {
        Ok(address) => address,
        Err(mistakes) => {
            mistakes
                .iter()
                .for_each(|mistake| say(&mistake.to_string()));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    match ask(address, &format!("/check?node={}", asked.node)) {
        Ok((200, report)) => print(&report, ExitCode::SUCCESS),
        Ok((503, report)) => print(&report, ExitCode::FAILURE),
        Ok((code, answer)) => {
            say(&format!("{address} answers {code}: {}", answer.trim()));
            ExitCode::FAILURE
        }
        Err(error) => {
            say(&format!("ask the server at {address}: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn print(report: &str, code: ExitCode) -> ExitCode {
    // Whoever closed the pipe does not want to read it.
    let _printed_or_not = io::stdout().write_all(report.as_bytes());
    code
}

/// Returns the code and the body of an answer.
fn ask(address: SocketAddr, target: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, CHECK_LIMIT)?;
    stream.set_read_timeout(Some(CHECK_LIMIT))?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let code = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        Some((code, body.to_owned()))
    });
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}
