//! Mutual TLS: both sides show a certificate that the cluster's own authority has signed, and that names
//! one node or client of the cluster. No other authority is believed, the system's included. TLS 1.3
//! alone, and no resumption: each connection proves anew who is there.

use std::{error::Error, fmt, fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, RootCertStore,
    ServerConfig, ServerConnection, SideData, SignatureScheme, StreamOwned,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use super::{Identity, TransportError, socket::Tcp};

/// Certificates and the key of one node or client.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    identity: Identity,
}

impl Tls {
    /// Reads PEM files: the authority's certificate, this side's certificate (with intermediate ones
    /// behind it), and its key.
    ///
    /// # Errors
    /// [`TransportError::Certificate`] with the file, and what is wrong.
    pub fn load(authority: &Path, certificate: &Path, key: &Path) -> Result<Tls, TransportError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| unusable(path.display().to_string(), Some(error)))
        };
        Tls::new(&read(authority)?, &read(certificate)?, &read(key)?)
    }

    /// The same of the files' contents.
    ///
    /// # Errors
    /// As above.
    pub fn new(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Tls, TransportError> {
        let chain = certificates("the certificate", certificate)?;
        let identity = identity_of(&chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| unusable("the key is no PEM".to_owned(), Some(error)))?;
        let mut roots = RootCertStore::empty();
        for root in certificates("the authority's certificate", authority)? {
            let what = "the authority's certificate cannot be used";
            roots.add(root).map_err(|error| unusable(what.to_owned(), Some(error)))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(ring::default_provider());
        let what = "certificate and key cannot be used";
        let refuse = |error| unusable(what.to_owned(), Some(error));
        let server = server_config(&provider, &roots, chain.clone(), key.clone_key());
        let client = client_config(provider, roots, chain, key);
        Ok(Tls {
            server: Arc::new(server.map_err(refuse)?),
            client: Arc::new(client.map_err(refuse)?),
            identity,
        })
    }

    /// Who this side is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// One side of a connection that was accepted, for who moves its bytes without waiting.
    pub(crate) fn accepted(&self) -> Result<ServerConnection, TransportError> {
        ServerConnection::new(Arc::clone(&self.server))
            .map_err(|error| unusable("TLS".to_owned(), Some(error)))
    }

    /// One side of a connection that was dialled, likewise.
    pub(crate) fn dialled(&self) -> Result<ClientConnection, TransportError> {
        let name = ServerName::try_from("treepie").expect("it is a name");
        ClientConnection::new(Arc::clone(&self.client), name)
            .map_err(|error| unusable("TLS".to_owned(), Some(error)))
    }

    pub(super) fn accept(
        &self,
        tcp: Tcp,
    ) -> Result<(StreamOwned<ServerConnection, Tcp>, Identity), TransportError> {
        let mut stream = StreamOwned::new(self.accepted()?, tcp);
        let identity = shake_hands(&mut stream.conn, &mut stream.sock)?;
        Ok((stream, identity))
    }

    pub(super) fn connect(
        &self,
        tcp: Tcp,
    ) -> Result<(StreamOwned<ClientConnection, Tcp>, Identity), TransportError> {
        let mut stream = StreamOwned::new(self.dialled()?, tcp);
        let identity = shake_hands(&mut stream.conn, &mut stream.sock)?;
        Ok((stream, identity))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Completes the handshake, and reads who is there out of the certificate, which was verified.
fn shake_hands<S: SideData>(
    connection: &mut ConnectionCommon<S>,
    tcp: &mut Tcp,
) -> Result<Identity, TransportError> {
    while connection.is_handshaking() {
        connection.complete_io(tcp)?;
    }
    identity_at(connection)
}

/// Who is at the other end, by the certificate that was shown and verified.
pub(crate) fn identity_at<S: SideData>(
    connection: &ConnectionCommon<S>,
) -> Result<Identity, TransportError> {
    let shown = connection.peer_certificates().and_then(|chain| chain.first());
    let nothing = || unusable::<rustls::Error>("no certificate was shown".to_owned(), None);
    identity_of(shown.ok_or_else(nothing)?)
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = Arc::new(SignedByAuthority { roots, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Verifies a certificate as usual, except for its host name: it names a node, which may be anywhere.
/// Which node it is, is compared behind the handshake.
#[derive(Debug)]
struct SignedByAuthority {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SignedByAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| unusable(format!("{what} is no PEM"), Some(error)))?;
    if chain.is_empty() {
        return Err(unusable::<rustls::Error>(format!("{what} is missing"), None));
    }
    Ok(chain)
}

/// Whom a certificate names: exactly one node or client.
fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, TransportError> {
    let refuse = |what: &str| unusable::<rustls::Error>(what.to_owned(), None);
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|error| unusable("a certificate cannot be read".to_owned(), Some(error)))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| unusable("the names of a certificate".to_owned(), Some(error)))?
        .ok_or_else(|| refuse("a certificate names nobody"))?;
    let mut identities = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Identity::parse(uri),
        _ => None,
    });
    match (identities.next(), identities.next()) {
        (Some(identity), None) => Ok(identity),
        (None, _) => Err(refuse("a certificate names no node and no client")),
        _ => Err(refuse("a certificate names more than one node or client")),
    }
}

fn unusable<E: Error + Send + Sync + 'static>(what: String, source: Option<E>) -> TransportError {
    let source = source.map(|error| Box::new(error) as Box<dyn Error + Send + Sync>);
    TransportError::Certificate { what, source }
}
