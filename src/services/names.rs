//! What kube-proxy notes about a rule → the Kubernetes service.
//!
//! Comments start with it (`shop/api:http cluster IP`), and chains of its nftables mode have it in their own name
//! (`service-ULMVA6XW-shop/api/tcp/http`). Others may write what they like into theirs, so who calls this has made sure that
//! the chain or table is one of kube-proxy's.

use std::rc::Rc;

/// Bytes of a name that is believed: a namespace, a name and a port have 63 each.
const LONGEST: usize = 256;

/// `shop/api:http cluster IP` → `shop/api:http`.
pub fn of_comment(comment: &str) -> Option<Rc<str>> {
    let word = comment.split(' ').next()?;
    let (namespace, rest) = word.split_once('/')?;
    let (name, port) = rest.split_once(':').map_or((rest, None), |(name, port)| (name, Some(port)));
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let is_whole = word.len() <= LONGEST && is_name(namespace) && is_name(name) && port.is_none_or(is_name);
    is_whole.then(|| word.into())
}

/// `service-ULMVA6XW-shop/api/tcp/http` → `shop/api:http`.
pub fn of_chain(chain: &str) -> Option<Rc<str>> {
    let (kind, rest) = chain.split_once('-')?;
    let (_hash, rest) = rest.split_once('-')?;
    let mut parts = rest.splitn(4, '/');
    let (namespace, name, _proto) = (parts.next()?, parts.next()?, parts.next()?);
    // a service without a named port ends with a slash
    let port = parts.next().filter(|port| !port.is_empty());
    if !matches!(kind, "service" | "external") {
        return None;
    }
    of_comment(&port.map_or_else(|| format!("{namespace}/{name}"), |port| format!("{namespace}/{name}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_of_kube_proxy_begin_with_the_service() {
        for (comment, name) in [
            ("shop/api:http cluster IP", "shop/api:http"),
            ("default/kubernetes:https -> 172.18.0.2:6443", "default/kubernetes:https"),
            ("shop/api", "shop/api"),
        ] {
            assert_eq!(of_comment(comment).as_deref(), Some(name));
        }
        let long = format!("shop/{}", "x".repeat(LONGEST));
        for comment in [
            "",
            "kubernetes service portals",
            "masquerade traffic for shop/api:http external destinations",
            "/api",
            "shop/",
            "shop/api:",
            "shop/a\u{1b}[31m",
            "shop/api:http:x",
            "../../etc/passwd",
            &long,
        ] {
            assert_eq!(of_comment(comment), None, "{comment}");
        }
    }

    #[test]
    fn chains_of_its_nftables_mode_are_called_after_the_service() {
        for (chain, name) in [
            ("service-ULMVA6XW-ns1/svc-1/tcp/p80", Some("ns1/svc-1:p80")),
            ("external-ULMVA6XW-my-ns/svc1/udp/", Some("my-ns/svc1")),
            ("endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80", None),
            ("services", None),
            ("service-x-y", None),
        ] {
            assert_eq!(of_chain(chain).as_deref(), name, "{chain}");
        }
    }
}
