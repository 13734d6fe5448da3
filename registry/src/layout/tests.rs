use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use super::*;

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
    std::fs::write(path, text).expect("write");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
}

fn fill(folder: &Path, order: &[usize]) {
    let files = [("hello", "#!/bin/sh", 0o750), ("public/index.html", "<p>hello", 0o600), ("public/empty", "", 0o644)];
    for index in order {
        let (path, text, mode) = files[*index];
        write(&folder.join(path), text, mode);
    }
    write(&folder.join("x".repeat(90)).join("y".repeat(90)), "long path", 0o644);
    symlink("hello", folder.join("run")).expect("link");
    symlink("../hello", folder.join("public/up")).expect("link");
    symlink("not-there", folder.join("dangling")).expect("link");
}

fn names() -> (ReleaseName, ComponentName) {
    ("hello@r1".parse().expect("release"), "web".parse().expect("component"))
}

fn json(layout: &Layout, digest: &Digest) -> serde_json::Value {
    serde_json::from_reader(layout.open_blob(digest).expect("blob")).expect("JSON")
}

fn layer(layout: &Layout, artifact: &Artifact) -> Digest {
    let manifest = json(layout, &artifact.digest);
    manifest["layers"][0]["digest"].as_str().expect("digest").parse().expect("digest")
}

#[test]
fn the_same_content_has_the_same_digest() {
    let folder = tempfile::tempdir().expect("folder");
    let (a, b) = (folder.path().join("a"), folder.path().join("elsewhere/b"));
    fill(&a, &[0, 1, 2]);
    fill(&b, &[2, 1, 0]);
    // Times, and permissions beyond "executable", are no content.
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    File::open(b.join("hello")).expect("file").set_modified(old).expect("time");
    std::fs::set_permissions(b.join("hello"), std::fs::Permissions::from_mode(0o4711)).expect("mode");
    let (release, component) = names();
    let layout = Layout::open(&folder.path().join("layout")).expect("layout");
    let first = layout.pack(&a, &release, &component).expect("pack");
    assert_eq!(layout.pack(&a, &release, &component).expect("pack"), first);
    assert_eq!(layout.pack(&b, &"hello@r2".parse().expect("release"), &component).expect("pack"), first);
    write(&b.join("hello"), "#!/bin/bash", 0o750);
    assert_ne!(layout.pack(&b, &release, &component).expect("pack").digest, first.digest);
}

#[test]
fn an_artifact_is_a_whole_oci_layout() {
    let folder = tempfile::tempdir().expect("folder");
    let (content, at) = (folder.path().join("dist"), folder.path().join("layout"));
    fill(&content, &[0, 1, 2]);
    let (release, component) = names();
    let artifact = Layout::open(&at).expect("layout").pack(&content, &release, &component).expect("pack");
    // Opened again, with what a crash left.
    write(&at.join("unfinished/1-1"), "half", 0o644);
    let layout = Layout::open(&at).expect("layout");
    layout.pack(&content, &release, &component).expect("listed once");
    layout.pack(&content, &"hello@r2".parse().expect("release"), &component).expect("pack");
    assert_eq!(std::fs::read_dir(at.join("unfinished")).expect("folder").count(), 0);

    let marker = std::fs::read_to_string(at.join("oci-layout")).expect("marker");
    assert_eq!(marker, r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at.join("index.json")).expect("index")).expect("JSON");
    let listed: Vec<_> = index["manifests"].as_array().expect("list").iter().collect();
    let names: Vec<_> = listed.iter().map(|entry| &entry["annotations"][ANNOTATION_REF_NAME]).collect();
    assert_eq!(names, ["hello@r1/web", "hello@r2/web"]);
    assert!(listed.iter().all(|entry| entry["digest"] == artifact.digest.to_string()));

    let manifest = json(&layout, &artifact.digest);
    assert_eq!(manifest["artifactType"], COMPONENT_TYPE);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    assert_eq!(manifest["layers"][0]["size"], artifact.bytes);
    for blob in std::fs::read_dir(at.join("blobs/sha256")).expect("folder").map(|entry| entry.expect("entry").path()) {
        let bytes = std::fs::read(&blob).expect("blob");
        assert_eq!(Digest::of(&bytes).hex(), blob.file_name().expect("name").to_string_lossy());
    }
    assert!(matches!(layout.open_blob(&Digest::of(b"other")), Err(ArtifactError::Unknown { .. })));
}

#[test]
fn the_archive_holds_what_the_folder_held() {
    let folder = tempfile::tempdir().expect("folder");
    fill(&folder.path().join("dist"), &[0, 1, 2]);
    let (release, component) = names();
    let layout = Layout::open(&folder.path().join("layout")).expect("layout");
    let artifact = layout.pack(&folder.path().join("dist"), &release, &component).expect("pack");
    let blob = layout.open_blob(&layer(&layout, &artifact)).expect("layer");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(blob));
    let mut found = Vec::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("entry");
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        let link = entry.link_name().expect("link").map(|link| link.display().to_string());
        let header = entry.header();
        assert_eq!((header.uid().ok(), header.gid().ok(), header.mtime().ok()), (Some(0), Some(0), Some(0)));
        let path = entry.path().expect("path").display().to_string();
        found.push((path, header.mode().expect("mode"), link.unwrap_or(text)));
    }
    let long = (format!("{}/{}", "x".repeat(90), "y".repeat(90)), 0o644, "long path".to_owned());
    let expected = [
        ("dangling", 0o777, "not-there"),
        ("hello", 0o755, "#!/bin/sh"),
        ("public", 0o755, ""),
        ("public/empty", 0o644, ""),
        ("public/index.html", 0o644, "<p>hello"),
        ("public/up", 0o777, "../hello"),
        ("run", 0o777, "hello"),
    ];
    let mut expected: Vec<_> =
        expected.iter().map(|(path, mode, text)| ((*path).to_owned(), *mode, (*text).to_owned())).collect();
    expected.extend([("x".repeat(90), 0o755, String::new()), long]);
    let found: Vec<_> =
        found.into_iter().map(|(path, mode, text)| (path.trim_end_matches('/').to_owned(), mode, text)).collect();
    assert_eq!(found, expected);
}

#[test]
fn hostile_h84_links_out_of_the_folder_are_refused() {
    for (path, target) in [
        ("a", "/etc/passwd"),
        ("a", ".."),
        ("a", "../secret"),
        ("b/a", "../../secret"),
        ("b/a", "./../.././secret"),
        // Leads out by way of another link: `up` goes to the top, and from there further up.
        ("b/a", "up/../secret"),
        ("a", "b/../../secret"),
        ("a\u{1b}[31m", "/x"),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let content = folder.path().join("dist");
        std::fs::create_dir_all(content.join("b")).expect("folder");
        symlink("..", content.join("b/up")).expect("link");
        symlink(target, content.join(path)).expect("link");
        let (release, component) = names();
        let layout = Layout::open(&folder.path().join("layout")).expect("layout");
        let error = layout.pack(&content, &release, &component).expect_err(target).to_string();
        assert!(error.starts_with("the symbolic link") && !error.contains('\u{1b}'), "{error}");
        let left = std::fs::read_dir(folder.path().join("layout/unfinished")).expect("folder").count();
        assert_eq!(left, 0, "{target}: an unfinished blob was left");
    }
}

#[test]
fn hostile_h84_other_kinds_of_files_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let content = folder.path().join("dist");
    std::fs::create_dir_all(&content).expect("folder");
    let _socket = std::os::unix::net::UnixListener::bind(content.join("control")).expect("socket");
    let (release, component) = names();
    let layout = Layout::open(&folder.path().join("layout")).expect("layout");
    let error = layout.pack(&content, &release, &component).expect_err("socket").to_string();
    assert_eq!(error, "control is a socket: accepted are files, folders and symbolic links");
    assert!(layout.pack(&folder.path().join("none"), &release, &component).is_err());
}

#[test]
fn a_layout_of_another_version_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    write(&folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#, 0o644);
    assert!(matches!(Layout::open(folder.path()), Err(ArtifactError::Damaged { .. })));
}

#[test]
fn hostile_h84_what_no_agent_would_unpack_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let content = folder.path().join("dist");
    fill(&content, &[0, 1, 2]);
    let found = pack::entries(&content, 9).expect("so many").len();
    assert_eq!(found, 9);
    let Err(error) = pack::entries(&content, 8) else { panic!("one too many") };
    assert!(error.to_string().contains("more than 8 files"), "{error}");
    // No byte of it is on the disk: its length alone is too much.
    File::create(content.join("large")).and_then(|file| file.set_len(api::ARTIFACT_BYTES)).expect("made");
    let (release, component) = names();
    let layout = Layout::open(&folder.path().join("layout")).expect("layout");
    let error = layout.pack(&content, &release, &component).expect_err("too large").to_string();
    assert!(error.contains("bytes together, with large"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path().join("layout/unfinished")).expect("folder").count(), 0);
}

/// Bytes that compress by a half, the same for ever.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 0 { (state >> 33) as u8 } else { b' ' }
    };
    std::iter::repeat_with(step).take(length).collect()
}

#[test]
fn one_folder_has_one_digest() {
    let folder = tempfile::tempdir().expect("folder");
    let layout = Layout::open(&folder.path().join("layout")).expect("layout");
    let (release, component) = names();
    let (empty, small, large) = (folder.path().join("empty"), folder.path().join("small"), folder.path().join("large"));
    std::fs::create_dir_all(&empty).expect("folder");
    fill(&small, &[0, 1, 2]);
    fill(&large, &[0, 1, 2]);
    std::fs::write(large.join("noise"), noise(9_000_001)).expect("written");
    // Those that were released before artifacts had parts: what is on hosts and in records goes by them.
    for (content, expected) in [
        (&empty, "sha256:54ee5628d619fd273c52d3c78df2b4b7bc9b798305a875c5f5f32103924fb33f"),
        (&small, "sha256:0e74b6c42bdc6a07dfa2abc4ae830ef02da9239f6427c4a083328a51f124cfc6"),
        (&large, "sha256:9f3fa671b4a65a770dcfc4ab532286585fdf0f0328581ea3eab0f977c4b7f46c"),
    ] {
        let artifact = layout.pack(content, &release, &component).expect("pack");
        assert_eq!(artifact.digest.to_string(), expected, "{content:?}");
    }
    // The same in parts of 1 MiB, whoever is faster; and a part no smaller than the archive changes nothing.
    let parts = |bytes| layout.pack_by(&large, &release, &component, bytes).expect("pack");
    let cut = parts(1 << 20);
    assert_eq!(cut.digest.to_string(), "sha256:a14db7f059188cd07e217e96520bd39f4bd2b78161ac8758a139c9c66b9d3b74");
    (0..5).for_each(|_| assert_eq!(parts(1 << 20), cut));
    let mut archive = Vec::new();
    pack::tar(&large, &mut archive).expect("an archive");
    let exactly = archive.len() as u64;
    let layers = |artifact: &Artifact| json(&layout, &artifact.digest)["layers"].as_array().expect("layers").len();
    assert_eq!(
        parts(exactly).digest.to_string(),
        "sha256:9f3fa671b4a65a770dcfc4ab532286585fdf0f0328581ea3eab0f977c4b7f46c"
    );
    assert_eq!((layers(&parts(exactly - 1)), layers(&cut)), (2, 9));
    assert_eq!(std::fs::read_dir(folder.path().join("layout/unfinished")).expect("folder").count(), 0);
}

#[test]
fn parts_one_after_the_other_are_one_archive() {
    let folder = tempfile::tempdir().expect("folder");
    let (content, at) = (folder.path().join("dist"), folder.path().join("layout"));
    fill(&content, &[0, 1, 2]);
    std::fs::write(content.join("noise"), noise(3_000_000)).expect("written");
    let layout = Layout::open(&at).expect("layout");
    let (release, component) = names();
    let artifact = layout.pack_by(&content, &release, &component, 1 << 20).expect("pack");
    let manifest = json(&layout, &artifact.digest);
    let (mut all, mut bytes) = (Vec::new(), 0);
    for (place, layer) in manifest["layers"].as_array().expect("layers").iter().enumerate() {
        assert_eq!(layer["mediaType"], PART_TYPE);
        assert_eq!(layer["annotations"][PART_ANNOTATION], format!("{}/3", place + 1));
        let digest = layer["digest"].as_str().expect("digest").parse().expect("digest");
        layout.open_blob(&digest).expect("part").read_to_end(&mut all).expect("bytes");
        bytes += layer["size"].as_u64().expect("size");
    }
    assert_eq!((all.len() as u64, bytes), (artifact.bytes, artifact.bytes));
    // Others read it as well as we do.
    let whole = folder.path().join("whole.tar.gz");
    std::fs::write(&whole, &all).expect("written");
    let shell = format!(
        "gzip -dc {0} | tar -tf - && gzip -dc {0} | tar -xOf - noise | cmp - {1}/noise",
        whole.display(),
        content.display()
    );
    let listed = std::process::Command::new("sh").args(["-c", &shell]).output().expect("sh, gzip and tar");
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), 10, "{listed:?}");
}

#[test]
fn only_what_nobody_names_is_swept() {
    let folder = tempfile::tempdir().expect("folder");
    let (content, at) = (folder.path().join("dist"), folder.path().join("layout"));
    fill(&content, &[0, 1, 2]);
    let layout = Layout::open(&at).expect("layout");
    let (release, component) = names();
    let kept = layout.pack_by(&content, &release, &component, 2048).expect("pack");
    write(&content.join("hello"), "another", 0o755);
    let other: ReleaseName = "hello@r2".parse().expect("release");
    let gone = layout.pack(&content, &other, &component).expect("pack");
    write(&at.join("unfinished").join(Digest::of(b"half").hex()), "half", 0o644);
    let layout = Layout::open(&at).expect("what came of a blob stays");
    let keep = std::collections::BTreeSet::from([kept.digest, Digest::of(b"only in a registry")]);
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3_600));
    assert_eq!(layout.sweep(&keep, now - hour).expect("swept"), Swept::default(), "it may be under way");
    let swept = layout.sweep(&keep, now + hour).expect("swept");
    // Manifest, layer, and the half: the empty config is both's.
    assert_eq!(swept.files, 3);
    assert!(swept.bytes > gone.bytes);
    assert!(matches!(layout.open_blob(&gone.digest), Err(ArtifactError::Unknown { .. })));
    for layer in json(&layout, &kept.digest)["layers"].as_array().expect("layers") {
        let digest = layer["digest"].as_str().expect("digest").parse().expect("digest");
        assert_eq!(layout.check_blob(&digest).ok(), layer["size"].as_u64());
    }
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at.join(INDEX)).expect("index")).expect("JSON");
    assert_eq!(index["manifests"].as_array().expect("list").len(), 1);
    // Nobody knows what a damaged manifest names.
    std::fs::write(at.join("blobs/sha256").join(kept.digest.hex()), "{}").expect("written");
    assert!(matches!(layout.sweep(&keep, now + hour), Err(ArtifactError::Changed { .. })));
    assert!(std::fs::read_dir(at.join("blobs/sha256")).expect("folder").count() > 2);
}
