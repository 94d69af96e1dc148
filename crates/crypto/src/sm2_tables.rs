//! SM2 verification under a key that is used again and again: with tables of its multiples.
//!
//! The equation is GM/T 0003.2-2012, 7.1; the point `s·G + t·P` comes from the library's interleaved multiplication over eight
//! 32-bit pieces of each scalar, whose bases `2^(32 i)·G` and `2^(32 i)·P` are kept with their windows: 32 doublings in place of
//! 256. Verdicts are the library's own; nothing here is secret.

use primeorder::PrimeCurveParams;
use sm2::{
    ProjectivePoint, Scalar, Sm2,
    dsa::Signature,
    elliptic_curve::{
        Group as _, ff::PrimeField as _, ops::Reduce as _, point::AffineCoordinates as _,
        sec1::ToSec1Point as _,
    },
};
use sm3::{Digest as _, Sm3};
use std::sync::LazyLock;
use wnaf::{WnafBase, WnafScalar, array::typenum::U8};

type Bases = [WnafBase<ProjectivePoint, U8>; 8];

static GENERATOR: LazyLock<Bases> = LazyLock::new(|| bases(ProjectivePoint::generator()));

fn bases(mut point: ProjectivePoint) -> Bases {
    std::array::from_fn(|_| {
        let base = WnafBase::new(&point);
        (0..32).for_each(|_| point = point.double());
        base
    })
}

fn pieces(scalar: &Scalar) -> [WnafScalar<Scalar, U8>; 8] {
    let mut bytes: [u8; 32] = scalar.to_repr().into();
    bytes.reverse();
    std::array::from_fn(|i| WnafScalar::from_le_bytes(&bytes[i * 4..i * 4 + 4]))
}

/// A public key with its tables: 48 KB.
pub(crate) struct Tabled {
    /// SM3 over what begins with the signer's identifier and ends with the key.
    z: [u8; 32],
    bases: Box<Bases>,
}

impl Tabled {
    /// Of a key, with the signer's identifier.
    pub(crate) fn new(id: &str, key: &sm2::PublicKey) -> Self {
        let mut z = Sm3::new();
        z.update((id.len() as u16 * 8).to_be_bytes());
        z.update(id);
        z.update(Sm2::EQUATION_A.to_bytes());
        z.update(Sm2::EQUATION_B.to_bytes());
        z.update(Sm2::GENERATOR.0.to_bytes());
        z.update(Sm2::GENERATOR.1.to_bytes());
        z.update(&key.to_sec1_point(false).as_bytes()[1..]);
        Self { z: z.finalize().into(), bases: Box::new(bases(key.to_projective())) }
    }

    /// Whether a signature is this key's over a message.
    pub(crate) fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        let e = Sm3::new_with_prefix(self.z).chain_update(message).finalize();
        let (r, s) = (*signature.r(), *signature.s());
        let t = r + s;
        if bool::from(t.is_zero()) {
            return false;
        }
        let (s, t) = (pieces(&s), pieces(&t));
        let pairs = GENERATOR.iter().zip(&s).chain(self.bases.iter().zip(&t));
        let point = WnafBase::multiscalar_mul(pairs);
        if bool::from(point.is_identity()) {
            return false;
        }
        let x = point.to_affine().x();
        r == Scalar::reduce(&e) + Scalar::reduce(&x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sm2::dsa::{
        SigningKey,
        signature::{Signer as _, Verifier as _},
    };

    const ID: &str = "1234567812345678";

    #[test]
    fn tables_give_the_librarys_verdicts() {
        for k in 0..4u8 {
            let key = SigningKey::from_slice(ID, &crate::random::<32>()).unwrap();
            let tabled = Tabled::new(ID, &key.verifying_key().into());
            for i in 0..40u32 {
                let message = [k; 70].repeat(i as usize % 3 + 1);
                let signature = key.sign(&message);
                assert!(tabled.verify(&message, &signature));
                let other = [&message[..], b"x"].concat();
                assert!(!tabled.verify(&other, &signature));
                let mut changed = signature.to_bytes();
                changed[(i as usize * 7) % 64] ^= 1 << (i % 8);
                if let Ok(changed) = Signature::from_bytes(&changed) {
                    let library = key.verifying_key().verify(&message, &changed).is_ok();
                    assert_eq!(tabled.verify(&message, &changed), library);
                }
            }
        }
    }

    #[test]
    fn pieces_of_a_scalar_make_the_whole() {
        let p = ProjectivePoint::generator() * Scalar::from(7u64);
        let bases = bases(p);
        for seed in [[0; 32], [1; 32], [0xfe; 32], crate::random()] {
            let Some(k) = Option::<Scalar>::from(Scalar::from_repr(seed.into())) else { continue };
            let whole = WnafBase::multiscalar_mul(bases.iter().zip(&pieces(&k)));
            assert_eq!(whole, p * k);
        }
    }
}
