//! Official vectors: GM/T 0003.5, GM/T 0004, RFC 8998, RFC 9180, and Wycheproof's for what this crate uses.

use crate::{digest, seal::Sm4Gcm, verify};
use aes_gcm::{
    KeyInit,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use hpke::{
    Deserializable, Kem as _, OpModeR, aead::ChaCha20Poly1305, kdf::HkdfSha256, kem::X25519HkdfSha256 as Kem,
};
use model::{PublicKey, Suite};
use wycheproof::TestResult;

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn sm3_hashes_as_in_gmt_0004() {
    let short = bytes("66c7f0f4 62eeedd9 d1f2d46b dc10e4e2 4167c487 5cf2f7a2 297da02b 8f4ba8e0");
    assert_eq!(digest(Suite::National, &[b"abc"]).0[..], short);
    let long = bytes("debe9ff9 2275b8a1 38604889 c18e5a4d 6fdb70e5 387e5765 293dcba3 9c0c5732");
    assert_eq!(digest(Suite::National, &[&b"abcd".repeat(16)]).0[..], long);
}

/// Appendix A of GM/T 0003.5-2012: the recommended curve, the default identifier.
#[test]
fn sm2_verifies_the_signature_of_gmt_0003_5() {
    let x = "09F9DF31 1E5421A1 50DD7D16 1E4BC5C6 72179FAD 1833FC07 6BB08FF3 56F35020";
    let y_is_odd = 0x13 & 1; // CCEA490C … 2DA9AD13
    let key: [u8; 33] = [vec![2 + y_is_odd], bytes(x)].concat().try_into().unwrap();
    let mut signature: [u8; 64] = bytes(
        "F5A03B06 48D2C463 0EEAC513 E1BB81A1 5944DA38 27D5B741 43AC7EAC EEE720B3
         B1B6AA29 DF212FD8 763182BC 0D421CA1 BB9038FD 1F7F42D4 840B69C4 85BBC1AA",
    )
    .try_into()
    .unwrap();
    assert!(verify(&PublicKey::Sm2(key), b"message digest", &signature));
    signature[5] ^= 1;
    assert!(!verify(&PublicKey::Sm2(key), b"message digest", &signature));
}

/// RFC 8998, A.1.
#[test]
fn sm4_gcm_seals_as_in_rfc_8998() {
    let key: [u8; 16] = bytes("0123456789ABCDEFFEDCBA9876543210").try_into().unwrap();
    let nonce: [u8; 12] = bytes("00001234567800000000ABCD").try_into().unwrap();
    let aad = bytes("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2");
    let plain = bytes(
        "AAAAAAAAAAAAAAAABBBBBBBBBBBBBBBBCCCCCCCCCCCCCCCCDDDDDDDDDDDDDDDD
         EEEEEEEEEEEEEEEEFFFFFFFFFFFFFFFFEEEEEEEEEEEEEEEEAAAAAAAAAAAAAAAA",
    );
    let sealed = bytes(
        "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735
         D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D
         83DE3541E4C2B58177E065A9BF7B62EC",
    );
    let cipher = Sm4Gcm::new(&key.into());
    assert_eq!(cipher.encrypt(&nonce.into(), Payload { msg: &plain, aad: &aad }).unwrap(), sealed);
    assert_eq!(cipher.decrypt(&nonce.into(), Payload { msg: &sealed, aad: &aad }).unwrap(), plain);
}

/// RFC 9180, A.2.1: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, the first message.
#[test]
fn hpke_opens_the_message_of_rfc_9180() {
    let key = bytes("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
    let encapsulated = bytes("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
    let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeR::Base,
        &<Kem as hpke::Kem>::PrivateKey::from_bytes(&key).unwrap(),
        &<Kem as hpke::Kem>::EncappedKey::from_bytes(&encapsulated).unwrap(),
        &bytes("4f6465206f6e2061204772656369616e2055726e"),
        &bytes("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"),
        &bytes("436f756e742d30"),
    );
    assert_eq!(opened.unwrap(), b"Beauty is truth, truth beauty");
    let (again, _) = Kem::derive_keypair(&key);
    assert_ne!(hpke::Serializable::to_bytes(&again)[..], key[..], "our seeds are key material, not keys");
}

/// Wycheproof follows RFC 8032, which has a verifier refuse an `R` that is not canonically encoded; ZIP 215 has every verifier
/// accept it, so that all give one verdict. Only the holder of the key can make such a signature.
const ZIP_215_ACCEPTS: [usize; 1] = [151];

#[test]
fn ed25519_gives_wycheproofs_verdicts() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut tested = 0;
    for group in set.test_groups {
        let key = PublicKey::Ed25519(group.key.pk[..].try_into().unwrap());
        for test in group.tests {
            let signature = <[u8; 64]>::try_from(&test.sig[..]);
            let good = signature.is_ok_and(|signature| verify(&key, &test.msg, &signature));
            let expected = test.result == TestResult::Valid || ZIP_215_ACCEPTS.contains(&test.tc_id);
            assert_eq!(good, expected, "case {}", test.tc_id);
            tested += 1;
        }
    }
    assert!(tested > 100, "{tested}");
}

#[test]
fn sm4_gcm_gives_wycheproofs_verdicts() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::Sm4Gcm).unwrap();
    let mut tested = 0;
    for group in set.test_groups.iter().filter(|g| g.nonce_size == 96 && g.tag_size == 128) {
        for test in &group.tests {
            let (Ok(key), Ok(nonce)) =
                (<[u8; 16]>::try_from(&test.key[..]), <[u8; 12]>::try_from(&test.nonce[..]))
            else {
                continue;
            };
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let payload = Payload { msg: &sealed, aad: &test.aad };
            let opened = Sm4Gcm::new(&key.into()).decrypt(&nonce.into(), payload);
            assert_eq!(opened.is_ok(), test.result == TestResult::Valid, "case {}", test.tc_id);
            if let Ok(opened) = opened {
                assert_eq!(opened, test.pt[..]);
            }
            tested += 1;
        }
    }
    assert!(tested > 50, "{tested}");
}

#[test]
fn hmac_sm3_gives_wycheproofs_verdicts() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSm3).unwrap();
    let mut tested = 0;
    for group in set.test_groups {
        for test in group.tests {
            let mut mac = <Hmac<sm3::Sm3> as hmac::KeyInit>::new_from_slice(&test.key).unwrap();
            mac.update(&test.msg);
            let good = mac.verify_truncated_left(&test.tag).is_ok();
            assert_eq!(good, test.result == TestResult::Valid, "case {}", test.tc_id);
            tested += 1;
        }
    }
    assert!(tested > 50, "{tested}");
}
