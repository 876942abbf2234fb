//! The addresses by which other brokers and clients reach this one, where it was not told any.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// An address of a network that exists nowhere (RFC 5737): the way to it is the way to everywhere.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// What others are told: `told`, or where we listen, or, if that is everywhere, the address from which this machine reaches others.
pub(crate) fn advertised(told: Option<&str>, listening: SocketAddr) -> String {
    if let Some(told) = told {
        return told.to_owned();
    }
    let ip = listening.ip();
    let ip = if ip.is_unspecified() { outward().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { ip };
    SocketAddr::new(ip.to_canonical(), listening.port()).to_string()
}

/// The address of this machine on its way out. Nothing is sent.
fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_counts_and_an_address_of_everywhere_is_not_told_on() {
        let listening = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(advertised(Some("broker-1:9092"), listening("0.0.0.0:1")), "broker-1:9092");
        assert_eq!(advertised(None, listening("127.0.0.1:7")), "127.0.0.1:7");
        assert_eq!(advertised(None, listening("[::1]:7")), "[::1]:7");
        let guessed: SocketAddr = advertised(None, listening("0.0.0.0:7")).parse().unwrap();
        assert!(!guessed.ip().is_unspecified() && guessed.port() == 7, "{guessed}");
    }
}
