//! Compiles every `bpf/*.bpf.c` and `bpf/hooks/*.bpf.c`, links them into one object and makes one skeleton of
//! it; `bpf/preflight/*.bpf.c` becomes a second, tiny one for trial loads. There is no list of files to edit.
//! Each build makes the objects of every architecture, `OUT_DIR/<arch>/*.bpf.o`, so that none breaks unseen; the
//! skeletons are of the target's. `CLANG` names another compiler.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const CLANG_ARGS: &[&str] = &["-Ivmlinux", "-Ibpf", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"];

/// What has a register layout in `vmlinux/`: cargo's name of the architecture, and the kernel's.
const ARCHS: &[(&str, &str)] = &[("x86_64", "x86"), ("aarch64", "arm64")];

fn main() {
    if let Err(e) = build() {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}

fn build() -> Result<()> {
    for path in ["bpf", "vmlinux"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut sources = sources_in("bpf")?;
    sources.extend(sources_in("bpf/hooks")?);
    let trials = sources_in("bpf/preflight")?;
    let target = env::var("CARGO_CFG_TARGET_ARCH")?;
    let Some((_, target_name)) = ARCHS.iter().find(|(arch, _)| *arch == target) else {
        return Err(format!("no register layout for `{target}` in vmlinux/").into());
    };
    for (arch, kernels_name) in ARCHS {
        let folder = out.join(kernels_name);
        fs::create_dir_all(&folder)?;
        for (name, sources) in [("ktrace", &sources), ("preflight", &trials)] {
            let linked = link(name, sources, kernels_name, &folder)?;
            if *arch == target {
                skeleton(name, &linked, &out)?;
            }
        }
    }
    compile_of_tests(&out, target_name)?;
    describe_build();
    describe_compiler()
}

/// What the live tests load by themselves, `OUT_DIR/*.bpf.o`; nothing where only the collector is there.
fn compile_of_tests(out: &Path, arch: &str) -> Result<()> {
    let sources = Path::new("tests/live/socketlb/rewriter.bpf.c");
    if sources.exists() {
        println!("cargo:rerun-if-changed={}", sources.display());
        compile(sources, arch, out)?;
    }
    Ok(())
}

fn sources_in(dir: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name().and_then(OsStr::to_str).is_some_and(|n| n.ends_with(".bpf.c")) {
            found.push(path);
        }
    }
    found.sort(); // the same object from the same sources
    Ok(found)
}

fn link(name: &str, sources: &[PathBuf], arch: &str, out: &Path) -> Result<PathBuf> {
    let linked = out.join(format!("{name}.bpf.o"));
    let mut linker = libbpf_rs::Linker::new(&linked)?;
    for source in sources {
        linker.add_file(compile(source, arch, out)?)?;
    }
    linker.link()?;
    Ok(linked)
}

fn skeleton(name: &str, linked: &Path, out: &Path) -> Result<()> {
    let path = out.join(format!("{name}.skel.rs"));
    SkeletonBuilder::new().obj(linked).reference_obj(true).generate(&path)?;
    // the loader gives its memory back
    let (private, public) = ("\n    static DATA:", "\n    pub static DATA:");
    let text = fs::read_to_string(&path)?;
    if !text.contains(private) {
        return Err(format!("the skeleton in {} has no `DATA`", path.display()).into());
    }
    fs::write(&path, text.replacen(private, public, 1))?;
    Ok(())
}

/// One source, one object. Not through `SkeletonBuilder::build`: that links each object by itself, and an extern
/// map then counts as defined in every file that has maps of its own.
fn compile(source: &Path, arch: &str, out: &Path) -> Result<PathBuf> {
    let object = out.join(source.file_name().ok_or("a source has a name")?).with_extension("o");
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let result = Command::new(&clang)
        .args(["-g", "-O2", "-target", "bpf", "-c"])
        .args(CLANG_ARGS)
        .arg(format!("-D__TARGET_ARCH_{arch}"))
        .arg("-isystem")
        .arg(libbpf_headers(out)?)
        .arg(source)
        .arg("-o")
        .arg(&object)
        .output()
        .map_err(|e| format!("cannot run `{}`: {e} (`make deps` installs it)", clang.display()))?;
    if !result.status.success() {
        return Err(format!("{}:\n{}", source.display(), String::from_utf8_lossy(&result.stderr)).into());
    }
    Ok(object)
}

/// `KTRACE_CLANG`, for the tests: what the verifier has to go through depends on it.
fn describe_compiler() -> Result<()> {
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let told = Command::new(clang).arg("-dumpversion").output()?;
    println!("cargo:rustc-env=KTRACE_CLANG={}", String::from_utf8(told.stdout)?.trim());
    Ok(())
}

/// The headers of the libbpf that is linked in, so that both sides are of one version.
fn libbpf_headers(out: &Path) -> Result<PathBuf> {
    let include = out.join("include");
    fs::create_dir_all(include.join("bpf"))?;
    for (name, text) in libbpf_rs::libbpf_sys::API_HEADERS {
        fs::write(include.join("bpf").join(name), text)?;
    }
    Ok(include)
}

/// `KTRACE_TARGET` always, `KTRACE_COMMIT` when built from a checkout.
fn describe_build() {
    println!("cargo:rustc-env=KTRACE_TARGET={}", env::var("TARGET").unwrap_or_default());
    println!("cargo:rerun-if-changed=.git/logs/HEAD");
    let commit = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    if let Some(text) = commit.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok()) {
        println!("cargo:rustc-env=KTRACE_COMMIT={}", text.trim());
    }
}
