//! What the hop is measured with and against (`loadtest/hop.sh`):
//!
//! ```text
//! yardstick bare 127.0.0.1:8001
//! yardstick open http://127.0.0.1:8000/ 10000 10 64
//! yardstick mixed http://127.0.0.1:8000 10000 10 64
//! ```
//!
//! `bare` answers `/` with 20 bytes and `/echo` with what it was sent; `open` sends so many
//! requests a second for so many seconds over so many connections and says what was answered and
//! how long it took, `mixed` does so with requests of several kinds (`loadtest/soak.sh`).

mod bare;
mod open;

use bytes::Bytes;
use http::{Method, Uri};

use self::open::{Kind, Pace};

/// What `mixed` sends, in turn: what costs nothing, what takes a while, and half of that again
/// as requests that may not be repeated.
const MIX: [(Method, &str, bool); 10] = [
    (Method::GET, "/noop", false),
    (Method::POST, "/echo", true),
    (Method::GET, "/noop", false),
    (Method::GET, "/sleep", false),
    (Method::GET, "/noop", false),
    (Method::GET, "/noop", false),
    (Method::POST, "/echo", true),
    (Method::GET, "/noop", false),
    (Method::POST, "/sleep", false),
    (Method::GET, "/noop", false),
];
const ECHO_BYTES: usize = 1024;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["bare", addr] => bare::serve(addr).await,
        [what @ ("open" | "mixed"), url, rate, seconds, connections] => {
            let pace = Pace {
                rate: rate.parse()?,
                seconds: seconds.parse()?,
                connections: connections.parse()?,
            };
            let kinds = match *what {
                "open" => vec![get(url.parse()?)],
                _ => MIX.map(mixed).into(),
            };
            open::load(url, kinds.leak(), pace).await
        }
        _ => Err("usage: yardstick bare ADDR | open|mixed URL RATE SECONDS CONNECTIONS".into()),
    }
}

fn get(url: Uri) -> Kind {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    mixed((Method::GET, path, false))
}

fn mixed((method, path, is_echo): (Method, &str, bool)) -> Kind {
    let body = if is_echo { ECHO_BYTES } else { 0 };
    Kind {
        method,
        path: path.to_owned(),
        body: Bytes::from(vec![b'x'; body]),
        is_echo,
    }
}
