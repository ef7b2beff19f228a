//! What the hop is measured with and against (`loadtest/hop.sh`):
//!
//! ```text
//! yardstick bare 127.0.0.1:8001
//! yardstick open http://127.0.0.1:8000/ 10000 10 64
//! ```
//!
//! `bare` answers `/` with 20 bytes and `/echo` with what it was sent; `open` sends so many
//! requests a second for so many seconds over so many connections and says how long they took.

mod bare;
mod open;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["bare", addr] => bare::serve(addr).await,
        ["open", url, rate, seconds, connections] => {
            open::load(url, rate.parse()?, seconds.parse()?, connections.parse()?).await
        }
        _ => Err("usage: yardstick bare ADDR | open URL RATE SECONDS CONNECTIONS".into()),
    }
}
