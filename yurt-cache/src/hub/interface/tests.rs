use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::*;

#[test]
fn the_loopback_has_to_do_where_the_kernel_has_no_dummy_interfaces() {
    for (made, expected) in [
        (Ok(()), Ok(false)),
        (Err(Errno::EXIST), Ok(false)),
        (Err(Errno::OPNOTSUPP), Ok(true)),
        (Err(Errno::NODEV), Ok(true)),
        (Err(Errno::PERM), Err(Errno::PERM)),
        (Err(Errno::NOBUFS), Err(Errno::NOBUFS)),
    ] {
        assert_eq!(falls_back(made), expected, "{made:?}");
    }
}

#[test]
fn who_may_not_change_addresses_is_told_what_is_missing() {
    let address = PodAddress::new("169.254.2.1".parse().unwrap());
    let told = address.failed("add the address")(Errno::PERM).to_string();
    assert!(
        told.contains("CAP_NET_ADMIN") && told.contains("169.254.2.1"),
        "{told}"
    );
    let told = address.failed("add the address")(Errno::NOBUFS).to_string();
    assert_eq!(told, "add the address for 169.254.2.1");
}

/// Set in the copy of this test that runs inside of the namespace.
const INSIDE: &str = "YURT_INSIDE_A_NAMESPACE";

#[test]
#[ignore = "needs root"]
fn an_address_comes_and_goes_in_a_namespace_of_its_own() {
    if std::env::var_os(INSIDE).is_some() {
        return comes_and_goes();
    }
    let this = std::env::current_exe().unwrap();
    let test = "hub::interface::tests::an_address_comes_and_goes_in_a_namespace_of_its_own";
    let inside = r#"ip link set lo up && exec "$0" "$@""#;
    let passed = Command::new("unshare")
        .args(["--net", "sh", "-c", inside])
        .arg(this)
        .args(["--ignored", "--exact", test])
        .env(INSIDE, "1")
        .status();
    assert!(passed.unwrap().success());
}

fn comes_and_goes() {
    for text in ["169.254.2.1", "fd00::2:1"] {
        let ip: IpAddr = text.parse().unwrap();
        let address = PodAddress::new(ip);
        let bind = || TcpListener::bind(SocketAddr::new(ip, 0));
        assert!(bind().is_err(), "{text} is not there yet");
        address.ensure().unwrap();
        address.ensure().unwrap();
        let listener = bind().unwrap();
        let at = listener.local_addr().unwrap();
        // The kernel may put the route of an IPv6 address in place a moment after the address.
        let reached = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            TcpStream::connect(at).is_ok()
        });
        assert!(reached, "{text} is reached");
        address.remove().unwrap();
        address.remove().unwrap();
        assert!(bind().is_err(), "{text} is gone");
        address.ensure().unwrap();
        bind().unwrap();
        address.remove().unwrap();
    }
}
