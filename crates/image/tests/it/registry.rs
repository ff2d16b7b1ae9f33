// SPDX-License-Identifier: Apache-2.0
//! Images that skopeo put into Debian's `docker-registry`, on loopback: plain, with a password, with TLS.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use image::reference::Reference;
use image::registry::credentials::{self, Credentials, Secret};
use image::registry::{BlobSink, Platform, Registry, RegistryConfig, RegistryError};
use sha2::{Digest as _, Sha256};

/// `s3cret` for `ann`, in bcrypt with little work.
const HTPASSWD: &str = "ann:$2b$04$SdV0my9.DYzq9OG5I.it7uxul16jTHAWV2OFzoonGd/2jV5DxNZ6q\n";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry that ends with the test.
struct Served {
    process: Child,
    address: String,
    home: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Served {
    /// Starts a registry with more settings of its section `http`, and others.
    fn start(home: tempfile::TempDir, http: &str, more: &str) -> Served {
        let storage = home.path().join("storage");
        let config = home.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:0\n{http}{more}",
            storage.display()
        );
        fs_err::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&config)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("OTEL_TRACES_EXPORTER", "none");
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = log.by_ref().find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("listening on ")?;
            Some(
                rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect::<String>(),
            )
        });
        // Its log goes on, and must not fill the pipe.
        std::thread::spawn(move || log.for_each(drop));
        Served { process, address: address.expect("a registry says where it listens"), home }
    }

    /// Puts an OCI layout into it.
    fn fill(&self, layout: &Path, to: &str, arguments: &[&str]) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--all", "--preserve-digests"]).args(arguments);
        skopeo.arg(format!("oci:{}:it", layout.display())).arg(format!("docker://{}/{to}", self.address));
        let output = skopeo.env("HOME", self.home.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Says whether the test cannot run here; with `MSB_TEST_REQUIRE=all` that is a failure.
#[expect(clippy::print_stderr, reason = "a test says why it was skipped")]
fn lacks(programs: &[&str]) -> bool {
    let is_there = |program: &&&str| {
        !["/usr/bin", "/bin", "/usr/sbin"].iter().any(|at| Path::new(at).join(program).exists())
    };
    let Some(missing) = programs.iter().find(is_there) else { return false };
    assert!(std::env::var_os("MSB_TEST_REQUIRE").is_none(), "{missing} is not installed");
    eprintln!("skipped: {missing} is not installed");
    true
}

#[derive(Default)]
struct Memory(Vec<u8>);

impl BlobSink for Memory {
    fn have(&self) -> u64 {
        self.0.len() as u64
    }

    fn restart(&mut self) -> io::Result<()> {
        self.0.clear();
        Ok(())
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(chunk);
        Ok(())
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An OCI layout on the disk with an index of one image for each architecture.
struct Layout {
    root: PathBuf,
    /// What is in the layer of each image: an archive of nothing, and then some.
    layers: Vec<Vec<u8>>,
    manifests: Vec<String>,
}

impl Layout {
    fn write(root: PathBuf, architectures: &[&str]) -> Layout {
        fs_err::create_dir_all(root.join("blobs/sha256")).unwrap();
        fs_err::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let mut layout = Layout { root, layers: Vec::new(), manifests: Vec::new() };
        let entries: Vec<String> = architectures.iter().map(|of| layout.image(of)).collect();
        let index =
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","));
        let entry = layout.blob(INDEX, index.as_bytes());
        let named = entry.replace('}', r#","annotations":{"org.opencontainers.image.ref.name":"it"}}"#);
        let top = format!(r#"{{"schemaVersion":2,"manifests":[{named}]}}"#);
        fs_err::write(layout.root.join("index.json"), top).unwrap();
        layout
    }

    fn image(&mut self, architecture: &str) -> String {
        let blocks = if self.layers.is_empty() { 2 } else { 2 + self.layers.len() };
        let layer = vec![0; 512 * blocks];
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
            sha256(&layer)
        );
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.as_bytes());
        let described = self.blob("application/vnd.oci.image.layer.v1.tar", &layer);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{described}]}}"#
        );
        self.layers.push(layer);
        let platform = format!(r#","platform":{{"os":"linux","architecture":"{architecture}"}}}}"#);
        let entry = self.blob(MANIFEST, manifest.as_bytes()).replace('}', &platform);
        self.manifests.push(manifest);
        entry
    }

    /// Writes a blob and returns its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        fs_err::write(self.root.join("blobs/sha256").join(&digest), bytes).unwrap();
        format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{digest}","size":{}}}"#, bytes.len())
    }
}

/// Pulls the image for an architecture; returns manifest and layer.
async fn pull(
    config: RegistryConfig,
    reference: &str,
    architecture: &str,
) -> Result<(Vec<u8>, Vec<u8>), RegistryError> {
    let reference = Reference::parse(reference, &config).unwrap();
    let registry = Registry::new(config)?;
    let platform = Platform { os: "linux".into(), architecture: architecture.into(), variant: None };
    let resolved = registry.resolve(&reference, &platform).await?;
    assert!(resolved.index_digest.is_some() || reference.digest().is_some());
    let mut layer = Memory::default();
    registry.fetch(&reference, &resolved.layers[0], &mut layer).await?;
    assert_eq!(format!("sha256:{}", sha256(&layer.0)), resolved.layers[0].digest().to_string());
    Ok((resolved.manifest, layer.0))
}

#[tokio::test]
async fn an_image_for_each_platform_comes_from_a_plain_registry() {
    if lacks(&["docker-registry", "skopeo"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let layout = Layout::write(home.path().join("layout"), &["amd64", "arm64"]);
    let served = Served::start(home, "", "");
    served.fill(&layout.root, "team/app:1", &["--dest-tls-verify=false"]);
    // Nobody named this registry as one without TLS: it is on loopback.
    let reference = format!("{}/team/app:1", served.address);
    for (number, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let (manifest, layer) = pull(RegistryConfig::default(), &reference, architecture).await.unwrap();
        assert_eq!(manifest, layout.manifests[number].as_bytes());
        assert_eq!(layer, layout.layers[number]);
    }
    let error = pull(RegistryConfig::default(), &reference, "s390x").await.unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/amd64, linux/arm64"), "{error}");

    let digest = sha256(layout.manifests[1].as_bytes());
    let by_digest = format!("{}/team/app@sha256:{digest}", served.address);
    assert_eq!(pull(RegistryConfig::default(), &by_digest, "amd64").await.unwrap().1, layout.layers[1]);
    for missing in ["team/app:2", "team/nothing", &format!("team/app@sha256:{}", "0".repeat(64))] {
        let error = pull(RegistryConfig::default(), &format!("{}/{missing}", served.address), "amd64").await;
        let error = error.unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }), "{missing}: {error}");
    }
    let config = RegistryConfig { default_registry: served.address.clone(), ..RegistryConfig::default() };
    pull(config, "team/app:1", "amd64").await.expect("the default registry is asked");
}

#[tokio::test]
async fn a_registry_with_a_password_is_read_with_a_login_only() {
    if lacks(&["docker-registry", "skopeo"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let layout = Layout::write(home.path().join("layout"), &["amd64"]);
    let htpasswd = home.path().join("htpasswd");
    fs_err::write(&htpasswd, HTPASSWD).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: it, path: {}}}}}\n", htpasswd.display());
    let served = Served::start(home, "", &auth);
    served.fill(&layout.root, "app:1", &["--dest-tls-verify=false", "--dest-creds=ann:s3cret"]);
    let reference = format!("{}/app:1", served.address);
    let error = pull(RegistryConfig::default(), &reference, "amd64").await.unwrap_err().to_string();
    assert!(error.contains(&format!("msb registry login {}", served.address)), "{error}");

    let with = |docker: Option<&Path>| RegistryConfig {
        credentials: Credentials::load(served.home.path(), docker).unwrap(),
        ..RegistryConfig::default()
    };
    credentials::save_login(served.home.path(), &served.address, "ann", Secret::new("wr0ng")).unwrap();
    let error = pull(with(None), &reference, "amd64").await.unwrap_err().to_string();
    assert!(error.contains("does not take the login") && !error.contains("wr0ng"), "{error}");
    credentials::save_login(served.home.path(), &served.address, "ann", Secret::new("s3cret")).unwrap();
    assert_eq!(pull(with(None), &reference, "amd64").await.unwrap().1, layout.layers[0]);

    credentials::remove_login(served.home.path(), &served.address).unwrap();
    let docker = served.home.path().join("config.json");
    // ann:s3cret
    fs_err::write(&docker, format!(r#"{{"auths":{{"{}":{{"auth":"YW5uOnMzY3JldA=="}}}}}}"#, served.address))
        .unwrap();
    assert_eq!(pull(with(Some(&docker)), &reference, "amd64").await.unwrap().1, layout.layers[0]);
}

/// Makes an authority and a certificate of it for 127.0.0.1; returns the authority's certificate in DER.
fn certificates(at: &Path) -> Vec<u8> {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(at).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=it-authority"));
    openssl(&format!("req {key} -keyout own.key -out own.csr -subj /CN=it-registry"));
    fs_err::write(at.join("own.ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(
        "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile own.ext -out own.pem",
    );
    openssl("x509 -in ca.pem -outform DER -out ca.der");
    fs_err::read(at.join("ca.der")).unwrap()
}

#[tokio::test]
async fn a_registry_with_tls_is_believed_by_its_authority_only() {
    if lacks(&["docker-registry", "skopeo", "openssl"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let layout = Layout::write(home.path().join("layout"), &["amd64"]);
    let authority = certificates(home.path());
    let at = |name: &str| home.path().join(name).display().to_string();
    let tls = format!("  tls: {{certificate: {}, key: {}}}\n", at("own.pem"), at("own.key"));
    let served = Served::start(home, &tls, "");
    served.fill(&layout.root, "app:1", &["--dest-tls-verify=false"]);
    let reference = format!("{}/app:1", served.address);

    let error = pull(RegistryConfig::default(), &reference, "amd64").await.unwrap_err().to_string();
    assert!(error.contains("certificate") && error.contains(&served.address), "{error}");
    let config = RegistryConfig { extra_roots: vec![authority], ..RegistryConfig::default() };
    assert_eq!(pull(config.clone(), &reference, "amd64").await.unwrap().1, layout.layers[0]);
    let by_name = reference.replace("127.0.0.1", "localhost");
    let error = pull(config, &by_name, "amd64").await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "the certificate is of another name: {error}");
    let config =
        RegistryConfig { extra_roots: vec![b"no certificate".to_vec()], ..RegistryConfig::default() };
    assert!(pull(config, &reference, "amd64").await.unwrap_err().to_string().contains("extra root"));
}
