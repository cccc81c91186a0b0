use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tempfile::TempDir;

use super::*;
use crate::certificate::authority::{left, names_of};
use crate::certificate::files::{AUTHORITY_FILE, AUTHORITY_KEY, SERVING_FILE, SERVING_KEY};
use crate::identity::subject::{parse, peer_node_name};
use crate::tls;

fn day(number: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + number * 86_400).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn make(dir: &TempDir, wanted: &[&str], now: Timestamp) -> ServingCertificate {
    ServingCertificate::load_or_make(dir.path(), &names(wanted), now).unwrap()
}

fn leaf(serving: &ServingCertificate) -> Vec<u8> {
    serving.identity().leaf().to_vec()
}

fn authority(dir: &TempDir) -> Vec<u8> {
    fs::read(dir.path().join(AUTHORITY_FILE)).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the damage that a test does")]
fn damage(dir: &TempDir, file: &str, content: &[u8]) {
    fs::write(dir.path().join(file), content).unwrap();
}

const NAMES: &[&str] = &["localhost", "Node-1.example", "127.0.0.1", "fd00::1"];

#[test]
fn a_client_with_the_ca_file_accepts_every_name() {
    let dir = TempDir::new().unwrap();
    let serving = make(&dir, NAMES, day(0));
    let roots = tls::read_roots(serving.authority_file().unwrap()).unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        roots.into(),
        tls::provider().into(),
    );
    let verifier = verifier.build().unwrap();
    let accepts = |name: &str, now: Timestamp| {
        let now = u64::try_from(now.as_second()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let leaf = serving.identity().leaf();
        rustls::client::danger::ServerCertVerifier::verify_server_cert(
            &*verifier,
            leaf,
            &[],
            &name,
            &[],
            now,
        )
        .is_ok()
    };
    for name in NAMES {
        assert!(accepts(name, day(0)), "{name}");
    }
    assert!(accepts("localhost", Timestamp::from_second(60).unwrap()));
    assert!(!accepts("localhost", day(366)));
    assert!(!accepts("elsewhere", day(0)));
}

#[test]
fn all_files_are_for_the_owner() {
    let dir = TempDir::new().unwrap();
    make(&dir, NAMES, day(0));
    for file in [AUTHORITY_KEY, SERVING_KEY, AUTHORITY_FILE, SERVING_FILE] {
        let metadata = fs::metadata(dir.path().join(file)).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn a_serving_certificate_lasts_for_two_thirds_of_its_life() {
    let dir = TempDir::new().unwrap();
    let first = make(&dir, NAMES, day(0));
    let ca = authority(&dir);
    let second = make(&dir, NAMES, day(240));
    assert_eq!(leaf(&first), leaf(&second));
    let third = make(&dir, NAMES, day(250));
    assert_ne!(leaf(&first), leaf(&third));
    assert_eq!(authority(&dir), ca);
}

#[test]
fn other_names_need_another_certificate_of_the_same_ca() {
    let dir = TempDir::new().unwrap();
    let first = make(&dir, NAMES, day(0));
    let ca = authority(&dir);
    let same = make(
        &dir,
        &["fd00:0::1", "127.0.0.1", "NODE-1.example", "localhost"],
        day(0),
    );
    assert_eq!(leaf(&first), leaf(&same));
    let fewer = make(&dir, &["localhost"], day(0));
    assert_ne!(leaf(&first), leaf(&fewer));
    assert_eq!(authority(&dir), ca);
}

#[test]
fn a_ca_is_replaced_before_it_ends() {
    let dir = TempDir::new().unwrap();
    make(&dir, NAMES, day(0));
    let ca = authority(&dir);
    make(&dir, NAMES, day(9 * 365 - 2));
    assert_eq!(authority(&dir), ca);
    make(&dir, NAMES, day(9 * 365 + 2));
    assert_ne!(authority(&dir), ca);
}

#[test]
fn any_damaged_file_is_made_again() {
    for file in [AUTHORITY_FILE, AUTHORITY_KEY, SERVING_FILE, SERVING_KEY] {
        for content in [
            &b""[..],
            b"-----BEGIN CERTIFICATE-----\nAAAA",
            b"\xff\xfe\x00",
        ] {
            let dir = TempDir::new().unwrap();
            let before = make(&dir, NAMES, day(0));
            damage(&dir, file, content);
            let after = make(&dir, NAMES, day(0));
            assert_ne!(leaf(&before), leaf(&after), "{file}");
            assert_eq!(leaf(&after), leaf(&make(&dir, NAMES, day(0))), "{file}");
        }
    }
}

#[test]
fn two_halves_of_different_pairs_are_not_a_pair() {
    for file in [AUTHORITY_FILE, AUTHORITY_KEY, SERVING_FILE, SERVING_KEY] {
        let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let before = make(&dir, NAMES, day(0));
        make(&other, NAMES, day(0));
        damage(&dir, file, &fs::read(other.path().join(file)).unwrap());
        let after = make(&dir, NAMES, day(0));
        assert_ne!(leaf(&before), leaf(&after), "{file}");
    }
}

#[test]
fn an_old_certificate_serves_on_when_it_cannot_be_renewed() {
    let dir = TempDir::new().unwrap();
    let first = make(&dir, NAMES, day(0));
    // What stands in the way of the new key stands for a disk that cannot be written.
    fs::create_dir(dir.path().join(".serving.key.new")).unwrap();
    assert_eq!(leaf(&first), leaf(&make(&dir, NAMES, day(300))));
    let expired = ServingCertificate::load_or_make(dir.path(), &names(NAMES), day(400));
    assert!(matches!(expired, Err(CertificateError::Write(_))));
}

#[test]
fn configured_files_are_taken_as_they_are() {
    let dir = TempDir::new().unwrap();
    let made = make(&dir, NAMES, day(0));
    let (certificate, key) = (dir.path().join(SERVING_FILE), dir.path().join(SERVING_KEY));
    let loaded = ServingCertificate::load(&certificate, &key).unwrap();
    assert_eq!(leaf(&made), leaf(&loaded));
    assert_eq!(loaded.authority_file(), None);
    let absent = ServingCertificate::load(&dir.path().join("absent"), &key);
    assert!(matches!(absent, Err(CertificateError::Load(_))));
}

#[test]
fn a_key_is_never_printed() {
    let dir = TempDir::new().unwrap();
    let printed = format!("{:?}", make(&dir, NAMES, day(0)));
    assert!(printed.contains("key: …"), "{printed}");
}

proptest::proptest! {
    #[test]
    fn a_damaged_certificate_never_panics(at: proptest::sample::Index, flip: u8) {
        let dir = TempDir::new().unwrap();
        make(&dir, NAMES, day(0));
        let pem = fs::read(dir.path().join(SERVING_FILE)).unwrap();
        let mut der = CertificateDer::from_pem_slice(&pem).unwrap().to_vec();
        let at = at.index(der.len());
        der[at] ^= flip;
        let _ = peer_node_name(&der);
        if let Some(certificate) = parse(&der) {
            let _ = (names_of(&certificate), left(&certificate, day(0)));
        }
    }
}
