//! Names of pods and containers by the directory of their logs, which the kubelet keeps whatever the runtime is. Only names
//! of files are read, never what is in them:
//!
//!     pods/<namespace>_<pod>_<pod uid>/                             before the pod starts
//!     containers/<pod>_<namespace>_<container>-<container id>.log   when the container has started

use std::fs;
use std::io;
use std::path::Path;

use super::names::{Names, PodName};

/// Names that are read of each directory.
const MOST: usize = 1 << 14;

/// What is there now, in the kubelet's `/var/log`.
///
/// # Errors
/// One of both directories cannot be read.
pub fn read(root: &Path) -> io::Result<Names> {
    let mut names = Names::default();
    each_name(&root.join("pods"), |name| pod(&mut names, name))?;
    each_name(&root.join("containers"), |name| container(&mut names, name))?;
    Ok(names)
}

fn each_name(directory: &Path, mut take: impl FnMut(&str) -> Option<()>) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.take(MOST).flatten() {
        // what the kubelet would not write is not read
        entry.file_name().to_str().and_then(&mut take);
    }
    Ok(())
}

fn pod(names: &mut Names, file: &str) -> Option<()> {
    let mut parts = file.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then(|| PodName::new(namespace, pod)).flatten().map(|name| names.add_pod(uid, name))
}

fn container(names: &mut Names, file: &str) -> Option<()> {
    let mut parts = file.strip_suffix(".log")?.split('_');
    let (pod, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (container, id) = rest.rsplit_once('-')?;
    let of = parts.next().is_none().then(|| PodName::new(namespace, pod)).flatten()?;
    names.add_container(id, of, container);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::names::Called;
    use super::*;

    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
    const ID: &str = "4f2a9c1b0d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";

    fn of(pods: &[&str], containers: &[&str]) -> Names {
        let dir = tempfile::tempdir().unwrap();
        for (kind, names) in [("pods", pods), ("containers", containers)] {
            std::fs::create_dir(dir.path().join(kind)).unwrap();
            names.iter().for_each(|name| std::fs::write(dir.path().join(kind).join(name), "").unwrap());
        }
        read(dir.path()).unwrap()
    }

    #[test]
    fn a_pod_and_its_container_are_named_by_what_the_kubelet_calls_their_logs() {
        let names = of(&[&format!("shop_api-7d9f-x2x_{UID}")], &[&format!("api-7d9f-x2x_shop_api-{ID}.log")]);
        let pod = names.pod(UID).unwrap();
        assert_eq!((&*pod.namespace, &*pod.pod), ("shop", "api-7d9f-x2x"));
        assert_eq!(names.container(pod, ID), Some(Called::Container("api")));
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn a_container_of_another_pod_lends_its_name_to_nobody() {
        let names = of(&[&format!("shop_api_{UID}")], &[&format!("other_shop_api-{ID}.log")]);
        assert_eq!(names.container(names.pod(UID).unwrap(), ID), None);
    }

    #[test]
    fn what_the_kubelet_would_not_write_is_not_read() {
        let long = "x".repeat(200);
        let pods = [
            format!("shop_api_{UID}_more"),
            format!("Shop_api_{UID}"),
            format!("sh\u{1b}[31mop_api_{UID}"),
            format!("_api_{UID}"),
            format!("{long}_api_0b1c6c2e"),
            "shop_api".into(),
        ];
        let containers = [format!("api_shop_api-{ID}"), "api_shop_api.log".into(), format!("api_shop_-{ID}.log")];
        assert_eq!(of(&pods.each_ref().map(|it| &**it), &containers.each_ref().map(|it| &**it)).len(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert_eq!(read(Path::new("/nonexistent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
