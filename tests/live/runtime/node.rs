//! A node: a private containerd with its CRI plugin and a CNI bridge, in a network namespace of its own. Its pods run what the
//! machine has, from an image that is made here. Nothing is pulled; all is removed on drop.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktrace_traffic::Truth;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cri::{
    Client, ContainerConfig, ContainerMetadata, ContainerSecurity, ContainerStatusResponse, CreateContainerRequest,
    ExecSyncRequest, ExecSyncResponse, Id, ImageSpec, LinuxContainer, LinuxSandbox, ListPodSandboxResponse, Mount,
    NamespaceOption, Nothing, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatusResponse, RunPodSandboxRequest,
    SandboxSecurity, VersionResponse,
};
use crate::net::Netns;
use crate::program::Program;
use crate::requirements::built;
use crate::wait::{DEADLINE, until};
use crate::workdir::Workdir;

const IMAGE: &str = "local.test/machine:1";
const PROGRAMS: [&str; 4] = ["/usr/bin/containerd", "/usr/sbin/runc", "/usr/lib/cni/bridge", "/bin/busybox"];

/// An address of the node that its pods reach.
pub const NODE_ADDRESS: &str = "10.99.0.1";

/// `CONTAINER_EXITED`.
const EXITED: i32 = 2;

/// A running containerd.
#[derive(Debug)]
pub struct Node {
    /// Its network namespace, and that of its pods on the host's network.
    pub netns: Netns,
    client: Client,
    kind: Containerd,
    containerd: Option<Program>,
    dir: Workdir,
}

/// Which containerd, and how.
#[derive(Debug, Clone, Default)]
pub struct Containerd {
    /// Folder of its programs; `None`: those of the machine.
    pub programs: Option<PathBuf>,
    /// Without its CRI plugin, as Docker has it.
    pub without_cri: bool,
    /// It says what it was asked.
    pub is_talkative: bool,
}

/// A pod to be.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether it is on the node's network.
    pub on_host: bool,
    labels: Vec<(String, String)>,
}

/// A pod with one container.
#[derive(Debug)]
pub struct Running {
    /// The container's id.
    pub id: String,
    sandbox: String,
    /// Inode of the pod's network namespace.
    pub netns: u32,
    log: PathBuf,
}

impl Pod {
    /// In the namespace `shop`, with a uid that no other pod of this run has.
    pub fn new(name: &str, on_host: bool) -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let uid = format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id());
        Self { namespace: "shop", name: name.into(), uid, on_host, labels: Vec::new() }
    }

    /// The same with these labels.
    pub fn with(self, labels: &[(&str, &str)]) -> Self {
        Self { labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(), ..self }
    }

    fn config(&self, logs: &Path) -> PodSandboxConfig {
        let own = [
            ("io.kubernetes.pod.namespace", self.namespace),
            ("io.kubernetes.pod.name", &self.name),
            ("io.kubernetes.pod.uid", &self.uid),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: self.name.clone(),
                uid: self.uid.clone(),
                namespace: self.namespace.into(),
            }),
            hostname: if self.on_host { String::new() } else { self.name.clone() },
            log_directory: logs.display().to_string(),
            labels: own.chain(self.labels.iter().cloned()).collect(),
            linux: Some(LinuxSandbox {
                cgroup_parent: format!("/kubepods/burstable/pod{}", self.uid),
                security: Some(SandboxSecurity { namespaces: Some(self.namespaces()) }),
            }),
        }
    }

    fn namespaces(&self) -> NamespaceOption {
        NamespaceOption { network: if self.on_host { 2 } else { 0 }, pid: 1 }
    }
}

impl Node {
    /// Starts one, and waits until it answers.
    pub fn start() -> Self {
        Self::of(Containerd::default())
    }

    /// Starts this one, and waits until it answers.
    pub fn of(kind: Containerd) -> Self {
        let missing: Vec<_> = PROGRAMS.iter().filter(|path| !Path::new(path).exists()).collect();
        assert!(missing.is_empty(), "these tests need {missing:?}: run `scripts/deps.sh test`");
        let (dir, netns) = (Workdir::new(), Netns::alone());
        netns.run(&format!("ip addr add {NODE_ADDRESS}/32 dev lo"));
        for sub in ["cni", "logs"] {
            std::fs::create_dir(dir.join(sub)).unwrap();
        }
        let root = dir.join("");
        let config = include_str!("containerd.toml").replace("DIR/", &root.display().to_string());
        let disabled = if kind.without_cri {
            r#"disabled_plugins = ["io.containerd.grpc.v1.cri", "#
        } else {
            "disabled_plugins = ["
        };
        let config = config.replace("IMAGE", IMAGE).replace("disabled_plugins = [", disabled);
        std::fs::write(dir.join("containerd.toml"), config).unwrap();
        let bridge = include_str!("bridge.conflist").replace("DIR/", &root.display().to_string());
        std::fs::write(dir.join("cni/10-bridge.conflist"), bridge).unwrap();
        let client = Client::new(&dir.join("containerd.sock"));
        let mut node = Self { netns, client, kind, containerd: None, dir };
        node.start_containerd();
        node.import_image();
        node
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Starts containerd, if it does not run, and waits until it answers.
    pub fn start_containerd(&mut self) {
        let mut command = self.netns.command("containerd");
        command.arg("--config").arg(self.dir.join("containerd.toml"));
        if self.kind.is_talkative {
            command.args(["--log-level", "trace"]);
        }
        // it looks there for the program that holds each container, too
        self.in_its_path(&mut command);
        self.containerd = Some(Program::start(command));
        until("an answer of containerd", DEADLINE, || {
            self.containerd.as_mut().unwrap().assert_running();
            match self.kind.without_cri {
                true => self.ctr(&["version"]).output().unwrap().status.success().then_some(()),
                false => self.client.call::<_, VersionResponse>("Version", Nothing {}).ok().map(|_| ()),
            }
        });
    }

    fn in_its_path(&self, command: &mut Command) {
        if let Some(programs) = &self.kind.programs {
            command.env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()));
        }
    }

    /// Its own client.
    fn ctr(&self, args: &[&str]) -> Command {
        let program = self.kind.programs.as_ref().map_or("ctr".into(), |dir| dir.join("ctr"));
        let mut command = Command::new(program);
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(args);
        command
    }

    /// Runs something that does nothing, as the container of this id with these labels.
    pub fn run_labelled(&self, id: &str, cgroup: &str, labels: &[(&str, &str)]) {
        // with its state here: elsewhere a run that was killed would leave its ids to the next one
        let state = self.dir.join("runc").display().to_string();
        let mut command = self.ctr(&["run", "--detach", "--cgroup", cgroup, "--runc-root", &state]);
        command.args(labels.iter().flat_map(|(key, value)| ["--label".to_owned(), format!("{key}={value}")]));
        succeed(command.args([IMAGE, id, "/bin/busybox", "sleep", "1000"]));
    }

    /// Ends what [`Node::run_labelled`] has begun.
    pub fn end_labelled(&self, id: &str) {
        succeed(&mut self.ctr(&["tasks", "delete", "--force", id]));
    }

    /// Waits until it has answered with a list of containers that has this one, and then with one of pods that has its
    /// pod. The kubelet of this node asks for no lists.
    pub fn wait_until_listed(&self, running: &Running) {
        until("lists with a container", DEADLINE, || {
            let said = self.containerd.as_ref().unwrap().stderr();
            let mut said = said.iter();
            let mut has = |answer: &str, id: &str| said.any(|line| line.contains(answer) && line.contains(id));
            (has("returns containers [", &running.id) && has("returns pod sandboxes [", &running.sandbox)).then_some(())
        });
        // an answer to a later question: the earlier ones are sent
        let _: ContainerStatusResponse = self.ask("ContainerStatus", Id { id: running.id.clone(), verbose: false });
    }

    /// Sends containerd a signal; the containers go on.
    pub fn signal(&self, signal: Signal) {
        self.containerd.as_ref().unwrap().signal(signal);
    }

    /// Kills containerd; the containers go on.
    pub fn kill_containerd(&mut self) {
        drop(self.containerd.take());
    }

    fn import_image(&self) {
        let (script, image) = (self.dir.join("image.sh"), self.dir.join("image.tar"));
        std::fs::write(&script, include_str!("image.sh")).unwrap();
        succeed(Command::new("bash").arg(script).arg(IMAGE).arg(&image));
        succeed(self.ctr(&["images", "import"]).arg(image));
    }

    /// Starts a pod with one container that runs this command line, in which `traffic` is what is built here.
    pub fn run(&self, pod: &Pod, container: &str, script: &str) -> Running {
        let logs = self.dir.join("logs").join(&pod.uid);
        let config = pod.config(&logs);
        let sandbox: Id = self.ask("RunPodSandbox", RunPodSandboxRequest { config: Some(config.clone()) });
        let mut labels: HashMap<_, _> = config.labels.clone();
        labels.insert("io.kubernetes.container.name".into(), container.into());
        let mount = |host: &Path, inside: &str| Mount {
            container_path: inside.into(),
            host_path: host.display().to_string(),
            readonly: true,
        };
        let traffic = built("traffic");
        let of_container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: container.into() }),
            image: Some(ImageSpec { image: IMAGE.into() }),
            command: ["/usr/bin/sh", "-c", script].map(Into::into).into(),
            mounts: vec![mount(Path::new("/usr"), "/usr"), mount(traffic.parent().unwrap(), "/traffic")],
            labels,
            log_path: format!("{container}.log"),
            linux: Some(LinuxContainer { security: Some(ContainerSecurity { namespaces: Some(pod.namespaces()) }) }),
        };
        let create = CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(of_container),
            sandbox_config: Some(config),
        };
        let created: Id = self.ask("CreateContainer", create);
        let _: Nothing = self.ask("StartContainer", Id { id: created.id.clone(), verbose: false });
        let netns = self.netns_of(&sandbox.id);
        Running { id: created.id, sandbox: sandbox.id, netns, log: logs.join(format!("{container}.log")) }
    }

    /// Waits until a container has ended by itself, and removes its pod.
    pub fn end(&self, running: &Running) {
        until("the end of a container", DEADLINE, || {
            let id = Id { id: running.id.clone(), verbose: false };
            let status: ContainerStatusResponse = self.ask("ContainerStatus", id);
            (status.status.unwrap().state == EXITED).then_some(())
        });
        self.remove(running);
    }

    /// Ends a container, and removes its pod.
    pub fn remove(&self, running: &Running) {
        remove(&self.client, &running.sandbox);
    }

    fn netns_of(&self, sandbox: &str) -> u32 {
        let path = format!("/proc/{}/ns/net", self.pid_of(sandbox));
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap()).try_into().unwrap()
    }

    fn pid_of(&self, sandbox: &str) -> String {
        let status: PodSandboxStatusResponse = self.ask("PodSandboxStatus", Id { id: sandbox.into(), verbose: true });
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
        info["pid"].to_string()
    }

    /// The address of a pod on the bridge, as its own interface has it.
    pub fn address(&self, running: &Running) -> String {
        let pid = self.pid_of(&running.sandbox);
        let shown = Command::new("nsenter").args(["-t", &pid, "-n", "ip", "-4", "-o", "addr", "show", "eth0"]).output();
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        let address = shown.split_whitespace().nth(3).and_then(|it| it.split('/').next());
        address.unwrap_or_else(|| panic!("no address in {shown:?}")).to_owned()
    }

    /// Runs `traffic` in a container that is running, to its end.
    pub fn exec(&self, running: &Running, args: &str) -> Vec<Truth> {
        // below a shell that stays: a traffic program dies with its parent, and runc does not stay
        let cmd = ["/usr/bin/sh", "-c", &format!("/traffic/traffic {args}; exit $?")].map(Into::into).into();
        let request = ExecSyncRequest { container_id: running.id.clone(), cmd, timeout: 20 };
        let done: ExecSyncResponse = self.ask("ExecSync", request);
        let [stdout, stderr] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(done.exit_code, 0, "{stderr}");
        stdout.lines().map(|line| Truth::parse(line).unwrap()).collect()
    }

    fn ask<Q, A>(&self, method: &str, question: Q) -> A
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.client.call(method, question).unwrap_or_else(|status| panic!("{method}: {status:?}"))
    }
}

impl Running {
    /// Waits until the container has printed so many lines.
    pub fn truths(&self, count: usize) -> Vec<Truth> {
        until("lines of a container", DEADLINE, || {
            let log = std::fs::read_to_string(&self.log).ok()?;
            // time, stream, whether the line is whole, and the line
            let lines = log.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>());
            let truths: Vec<_> = lines.filter(|it| it.len() == 4).map(|it| Truth::parse(it[3]).expect(it[3])).collect();
            (truths.len() >= count).then_some(truths)
        })
    }
}

fn remove(client: &Client, sandbox: &str) {
    for method in ["StopPodSandbox", "RemovePodSandbox"] {
        let done: Result<Nothing, _> = client.call(method, Id { id: sandbox.into(), verbose: false });
        if let Err(status) = done {
            eprintln!("{method} {sandbox}: {status:?}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(containerd) = self.containerd.as_ref().filter(|_| !self.kind.without_cri) {
            containerd.signal(Signal::SIGCONT);
            let pods: Result<ListPodSandboxResponse, _> = self.client.call("ListPodSandbox", Nothing {});
            for pod in pods.map(|it| it.items).unwrap_or_default() {
                remove(&self.client, &pod.id);
            }
        }
        drop(self.containerd.take());
        clean(&self.dir.join(""));
    }
}

/// Ends and unmounts what a containerd in this directory has left.
pub fn clean(dir: &Path) {
    let socket = dir.join("containerd.sock").display().to_string();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
        let cmdline = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let is_its = cmdline.split(|b| *b == 0).any(|word| word == socket.as_bytes());
        if is_its && pid != i32::try_from(std::process::id()).unwrap() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let inside =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| Path::new(point).starts_with(dir));
    for point in inside.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").args(["--lazy", point]).status();
    }
    let cgroups = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|w| w[2].starts_with("cgroup"));
    for root in cgroups.map(|w| Path::new(w[1]).join("kubepods")).filter(|root| root.exists()) {
        remove_empty(&root);
    }
}

/// The kubelet removes the cgroups of pods, and nobody else.
fn remove_empty(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // fails for those that are in use
    let _ = std::fs::remove_dir(cgroup);
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
