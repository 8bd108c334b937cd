//! Certificates of a cluster, as files.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use crate::run::Place;

/// The id that the cluster will have: chosen before there is one.
const CLUSTER: &str = "treepie://cluster/3b8e1c52-6f0e-4c1d-9f25-7a6b3d9e0f41/0";
const OTHER: &str = "treepie://cluster/3b8e1c52-6f0e-4c1d-9f25-7a6b3d9e0f42/0";

/// An authority, and another one that nobody knows.
pub struct Files {
    authority: CertifiedIssuer<'static, KeyPair>,
    forger: CertifiedIssuer<'static, KeyPair>,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Files {
    pub fn new() -> Files {
        Files { authority: authority(), forger: authority() }
    }

    /// Writes certificates of nodes 1 to `count`, of a client, and of some who are to be refused.
    pub fn write(&self, place: &Place, count: u64) {
        place.file("ca.pem", self.authority.pem());
        for id in 1..=count {
            sign(&self.authority, place, &format!("node-{id}"), &format!("{CLUSTER}/node/{id}"));
        }
        sign(&self.authority, place, "client", &format!("{CLUSTER}/client/test"));
        sign(&self.authority, place, "stranger", &format!("{OTHER}/node/4"));
        sign(&self.forger, place, "forged", &format!("{CLUSTER}/node/4"));
    }

    /// What names the files of one of them.
    pub fn arguments(who: &str) -> Vec<String> {
        let (cert, key) = (format!("{who}.pem"), format!("{who}.key"));
        ["--ca", "ca.pem", "--cert", &cert, "--key", &key].map(str::to_owned).into()
    }
}

fn sign(issuer: &CertifiedIssuer<'static, KeyPair>, place: &Place, name: &str, uri: &str) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap().pem();
    place.file(&format!("{name}.pem"), certificate);
    place.file(&format!("{name}.key"), key.serialize_pem());
}
