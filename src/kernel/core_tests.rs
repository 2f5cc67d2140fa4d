//! The CO-RE dry run of `scripts/core-check.sh`: libbpf relocates every program against the BTF of a kernel, and what it could
//! not resolve is held against what the program does. libbpf puts an invalid call where a relocation is not resolved;
//! the verifier accepts that as long as it cannot be reached, which [`super::core_reach`] finds out the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use libbpf_rs::btf::{Btf, types};
use libbpf_rs::{PrintLevel, libbpf_sys, set_print};

use super::core_reach::{Poisoned, reached};
use super::features::{Answer, Features, Need};
use crate::hooks::{HOOKS, Variant};

/// The object of each architecture, by the name of the folder of its kernels.
static OBJECTS: [(&str, &[u8]); 2] = [
    ("x86_64", include_bytes!(concat!(env!("OUT_DIR"), "/x86/ktrace.bpf.o"))),
    ("aarch64", include_bytes!(concat!(env!("OUT_DIR"), "/arm64/ktrace.bpf.o"))),
];

/// Folder of the files `<architecture>/*.btf` to look at.
const FOLDER: &str = "KTRACE_CORE_BTFS";

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn keep(_level: PrintLevel, text: String) {
    LINES.lock().unwrap().extend(text.lines().map(str::to_owned));
}

/// What libbpf could not resolve in one program.
#[derive(Debug, Default)]
struct Unresolved {
    /// By instruction: the relocation in libbpf's words.
    relocations: BTreeMap<usize, String>,
    /// Those instructions that can be reached.
    fatal: BTreeSet<usize>,
}

/// Relocates all programs and returns those with something unresolved. No program is loaded: the script sees to it that
/// no bpf(2) reaches the kernel.
fn relocate(object: &'static [u8], btf: &Path) -> Result<BTreeMap<String, Unresolved>, String> {
    LINES.lock().unwrap().clear();
    let path = CString::new(btf.to_str().unwrap()).unwrap();
    let options = libbpf_sys::bpf_object_open_opts {
        sz: size_of::<libbpf_sys::bpf_object_open_opts>() as libbpf_sys::size_t,
        btf_custom_path: path.as_ptr(),
        ..Default::default()
    };
    // SAFETY: the object is whole and static, `options` and its path outlive the call.
    let object = unsafe {
        libbpf_sys::bpf_object__open_mem(object.as_ptr().cast(), object.len() as libbpf_sys::size_t, &raw const options)
    };
    assert!(!object.is_null(), "the object cannot be opened");
    let mut programs = Vec::new();
    let mut program = std::ptr::null_mut();
    loop {
        // SAFETY: `object` is open, and `program` is null or one of its programs.
        program = unsafe { libbpf_sys::bpf_object__next_program(object, program) };
        if program.is_null() {
            break;
        }
        // so that nothing of this machine's own kernel is looked up
        // SAFETY: a program of an object that is not loaded.
        unsafe {
            libbpf_sys::bpf_program__set_type(program, libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT);
            libbpf_sys::bpf_program__set_autoload(program, true);
        }
        programs.push(program);
    }
    // SAFETY: `object` is open. Its end is expected: relocation comes before what cannot work without a kernel.
    unsafe { libbpf_sys::bpf_object__load(object) };
    let lines = std::mem::take(&mut *LINES.lock().unwrap());
    let failed = lines.iter().find(|l| l.contains("failed to perform CO-RE relocations")).cloned();
    let relocated = lines.iter().any(|l| l.contains("relo #0: ")).then_some(()).ok_or("nothing was relocated");
    let told = unresolved(&lines);
    let mut found = BTreeMap::new();
    for program in programs {
        // SAFETY: the object is not closed yet; name and instructions live as long as it does.
        let (name, code) = unsafe {
            let name = CStr::from_ptr(libbpf_sys::bpf_program__name(program)).to_string_lossy().into_owned();
            let count = libbpf_sys::bpf_program__insn_cnt(program) as usize;
            (name, std::slice::from_raw_parts(libbpf_sys::bpf_program__insns(program), count))
        };
        let Poisoned { all, reached } = reached(code);
        if !all.is_empty() {
            let relocations = all.iter().map(|at| (*at, words(&told, &name, &all, *at))).collect();
            found.insert(name, Unresolved { relocations, fatal: reached });
        }
    }
    // SAFETY: opened above, and nothing of it is used any more.
    unsafe { libbpf_sys::bpf_object__close(object) };
    relocated?;
    failed.map_or(Ok(found), Err)
}

/// Relocations of one function that libbpf could not resolve: by instruction, in its own words such as
/// `<byte_off> struct net.net_cookie`.
struct OfFunction<'a> {
    name: &'a str,
    relocations: BTreeMap<usize, &'a str>,
}

/// All of them. Several files have a function of the same name: where the instructions begin anew, it is the next one's.
fn unresolved(lines: &[String]) -> Vec<OfFunction<'_>> {
    fn told<'a>(lines: &'a [String], line: &'a str) -> Option<(&'a str, usize, &'a str)> {
        let (name, rest) = line.split_once("prog '")?.1.split_once("': relo #")?;
        let (number, rest) = rest.split_once(": substituting insn #")?;
        let at = rest.strip_suffix(" w/ invalid insn")?.parse().ok()?;
        let first = format!("prog '{name}': relo #{number}: <");
        let (_, spec) = lines.iter().find_map(|l| l.split_once(&first))?;
        Some((name, at, spec.split(" (").next()?))
    }
    let mut functions: Vec<OfFunction<'_>> = Vec::new();
    for (name, at, spec) in lines.iter().filter_map(|line| told(lines, line)) {
        match functions.last_mut() {
            Some(last) if last.name == name && last.relocations.keys().all(|place| *place < at) => {
                last.relocations.insert(at, spec);
            }
            _ => functions.push(OfFunction { name, relocations: BTreeMap::from([(at, spec)]) }),
        }
    }
    functions
}

/// Which relocation an instruction of a whole program stands for. Functions that it calls stand behind it, each as a
/// whole: where all of a function's unresolved instructions fall on some of the program's, this is the function.
fn words(functions: &[OfFunction<'_>], program: &str, all: &BTreeSet<usize>, at: usize) -> String {
    let own = functions.iter().find_map(|f| f.relocations.get(&at).filter(|_| f.name == program).map(|spec| (f, spec)));
    let called = || {
        functions.iter().find_map(|f| {
            let begins_at = |from: usize| f.relocations.keys().all(|place| all.contains(&(from + place)));
            let mut places = f.relocations.iter();
            places.find(|(place, _)| at.checked_sub(**place).is_some_and(begins_at)).map(|(_, spec)| (f, spec))
        })
    };
    let (f, spec) = own.or_else(called).unwrap_or_else(|| panic!("libbpf says nothing of {program}, {at}"));
    format!("<{spec} in `{}`", f.name)
}

/// Why a variant is not used on a kernel with these types, if so. Everything that BTF does not tell is taken as there.
fn not_used(variant: &Variant, btf: &Btf<'_>, features: &Features) -> Option<String> {
    variant.needs.iter().find_map(|need| match need {
        Need::Tracepoint("syscalls", _) => None,
        Need::Tracepoint(_, name) => {
            let there = btf.type_by_name::<types::Typedef<'_>>(&format!("btf_trace_{name}")).is_some();
            (!there).then(|| format!("no {need}"))
        }
        need => match features.answer(*need) {
            Answer::No(why) => Some(why),
            Answer::Yes | Answer::Unknown(_) => None,
        },
    })
}

/// Whether some hook uses this program on that kernel, and if not, why not.
fn user(program: &str, btf: &Btf<'_>, features: &Features) -> Result<String, String> {
    let mut why_not = "no hook has it".to_owned();
    for hook in HOOKS {
        for variant in hook.variants() {
            let optional = variant.optional.iter().filter(|o| o.programs.contains(&program));
            let needs_of_optional = optional.clone().flat_map(|o| o.needs).copied().collect::<Vec<_>>();
            let own = [variant.programs, variant.more, variant.seconds].iter().any(|of| of.contains(&program));
            if !own && optional.count() == 0 {
                continue;
            }
            let missing = needs_of_optional.iter().find_map(|need| match features.answer(*need) {
                Answer::No(why) => Some(why),
                _ => None,
            });
            match not_used(variant, btf, features).or(missing) {
                None => return Ok(format!("{} {}", hook.name(), variant.name)),
                Some(why) => why_not = why,
            }
        }
    }
    Err(why_not)
}

/// One kernel: prints a line for each unresolved relocation, and returns how many are fatal.
fn look_at(object: &'static [u8], path: &Path) -> usize {
    let kernel = path.file_stem().unwrap().to_string_lossy().into_owned();
    let btf = Btf::from_path(path).unwrap();
    let features = Features::of_file(path);
    let programs = relocate(object, path).unwrap_or_else(|why| panic!("{kernel}: {why}"));
    let mut fatal = 0;
    let mut by_relocation: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for (program, Unresolved { relocations, fatal: reachable }) in &programs {
        let user = user(program, &btf, &features);
        for (at, what) in relocations {
            let verdict = match (&user, reachable.contains(at)) {
                (_, false) => "guarded".to_owned(),
                (Err(why), true) => format!("not used here ({why})"),
                (Ok(user), true) => format!("FATAL for {user}"),
            };
            fatal += usize::from(verdict.starts_with("FATAL"));
            by_relocation.entry((what, verdict)).or_default().insert(program);
        }
    }
    for ((what, verdict), programs) in &by_relocation {
        let of = match programs.len() {
            1..=2 => programs.iter().copied().collect::<Vec<_>>().join(", "),
            many => format!("{many} programs"),
        };
        eprintln!("{kernel:16} {what}: {verdict}, {of}");
    }
    eprintln!("{kernel:16} {} relocations unresolved, {fatal} fatal", by_relocation.len());
    fatal
}

#[test]
#[ignore = "`make core-check` gives it kernels to look at"]
fn every_reachable_relocation_is_resolved() {
    set_print(Some((PrintLevel::Debug, keep)));
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect(FOLDER));
    let mut looked_at = 0;
    let mut fatal = 0;
    for (architecture, object) in OBJECTS {
        let Ok(entries) = std::fs::read_dir(folder.join(architecture)) else { continue };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|it| it == "btf"));
        files.sort();
        looked_at += files.len();
        for path in files {
            eprintln!("{architecture}:");
            fatal += look_at(object, &path);
        }
    }
    assert_ne!(looked_at, 0, "no kernels to look at");
    assert_eq!(fatal, 0, "relocations that are reached and cannot be resolved");
}

#[test]
#[ignore = "`make core-check` keeps bpf(2) from the kernel"]
fn a_type_that_no_kernel_has_is_fatal() {
    set_print(Some((PrintLevel::Debug, keep)));
    // the object's own types are BTF, and of all that the kernel has they hold nothing but what is declared here
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, empty_btf()).unwrap();
    for (architecture, object) in OBJECTS {
        let programs = relocate(object, file.path()).unwrap();
        let fatal = |name: &str| programs.get(name).is_some_and(|it| !it.fatal.is_empty());
        for program in HOOKS.iter().flat_map(|hook| hook.variants()).flat_map(|v| v.programs) {
            assert!(fatal(program), "{program} of {architecture} reads the kernel's types");
        }
    }
}

/// One type, `int`, which no program reads as a field.
fn empty_btf() -> Vec<u8> {
    let header = [0x0001_EB9F_u32, 24, 0, 16, 16, 5];
    let int = [1_u32, 1 << 24, 4, 32];
    header.iter().chain(&int).flat_map(|word| word.to_ne_bytes()).chain(*b"\0int\0").collect()
}
