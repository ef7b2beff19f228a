//! The address that a worker tells others to reach it by. Pure.

use mobula_process::net::Addr;

/// What was asked for, with the bound port in place of port 0; else the bound address, with the
/// machine's address in place of "all addresses", which nobody can dial.
pub(crate) fn advertised(bound: &Addr, asked: Option<Addr>, node_ip: &str) -> Addr {
    let Addr::Tcp(bound_text) = bound else {
        return asked.unwrap_or_else(|| bound.clone());
    };
    let (bound_host, bound_port) = split(bound_text);
    let asked = asked.unwrap_or_else(|| match bound_host {
        "0.0.0.0" | "[::]" => Addr::Tcp(with_port(node_ip, bound_port)),
        _ => bound.clone(),
    });
    match &asked {
        Addr::Tcp(text) => match split(text) {
            (host, "0") => Addr::Tcp(format!("{host}:{bound_port}")),
            _ => asked,
        },
        Addr::Unix(_) => asked,
    }
}

fn split(text: &str) -> (&str, &str) {
    text.rsplit_once(':').unwrap_or((text, ""))
}

fn with_port(ip: &str, port: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advertised_address_is_one_that_can_be_dialled() {
        for (bound, asked, node_ip, expected) in [
            ("127.0.0.1:7000", None, "10.0.0.1", "127.0.0.1:7000"),
            ("0.0.0.0:7000", None, "10.0.0.1", "10.0.0.1:7000"),
            ("[::]:7000", None, "fd00::1", "[fd00::1]:7000"),
            (
                "0.0.0.0:7000",
                Some("worker-1:0"),
                "10.0.0.1",
                "worker-1:7000",
            ),
            (
                "0.0.0.0:7000",
                Some("worker-1:80"),
                "10.0.0.1",
                "worker-1:80",
            ),
            ("unix:/run/w.sock", None, "10.0.0.1", "unix:/run/w.sock"),
        ] {
            let asked = asked.map(|text| text.parse().unwrap());
            let found = advertised(&bound.parse().unwrap(), asked, node_ip);
            assert_eq!(found.to_string(), expected, "{bound}");
        }
    }
}
