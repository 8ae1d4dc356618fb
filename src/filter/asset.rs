//! Static files, by their path: a missing picture is a flaw of the site, a missing `/.env` a probe.

/// Whether a request asks for a plain static file: `/path/name.ext` with an extension known to be one.
///
/// The query does not count, so `/.env?.js` is not one. Nor is a path whose last part has no name (`/wp-login.php/.css`), that leads
/// through something hidden or executable (`/.git/x.txt`, `/index.php/x.css`; `/.well-known/` is allowed), whose name hides another
/// kind (`/wp-config.php.txt`), or that hides a separator (`%2f`, `;`, a backslash) or has quotes and brackets in it.
pub(crate) fn is_static(uri: &[u8]) -> bool {
    let path = &uri[..uri.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(uri.len())];
    if path.first() != Some(&b'/') || path.iter().any(|b| SUSPECT.contains(b) || *b <= b' ') || hides(path) {
        return false;
    }
    let mut segments = path[1..].rsplit(|&b| b == b'/');
    let file = segments.next().unwrap_or_default();
    let Some(dot) = memchr::memrchr(b'.', file).filter(|&dot| dot > 0) else { return false };
    let (name, extension) = (&file[..dot], &file[dot + 1..]);
    STATIC.iter().any(|e| extension.eq_ignore_ascii_case(e))
        && name[0] != b'.'
        && !name.split(|&b| b == b'.').skip(1).any(is_probed)
        && segments.all(|s| s == b".well-known" || !leads_astray(s))
}

/// Nobody names a file with these; those who inject something do.
const SUSPECT: &[u8] = b";\\\"'<>{}|$*`";

const STATIC: [&[u8]; 21] = [
    b"png",
    b"jpg",
    b"jpeg",
    b"gif",
    b"ico",
    b"svg",
    b"webp",
    b"avif",
    b"bmp",
    b"css",
    b"js",
    b"mjs",
    b"map",
    b"ttf",
    b"otf",
    b"eot",
    b"woff",
    b"woff2",
    b"txt",
    b"webmanifest",
    b"cur",
];

/// Kinds of files that are asked for because they should not be there.
const PROBED: [&[u8]; 25] = [
    b"asp", b"aspx", b"bak", b"backup", b"bash", b"cfg", b"cgi", b"conf", b"config", b"db", b"env", b"git",
    b"ini", b"jsp", b"key", b"log", b"old", b"pem", b"pl", b"py", b"sh", b"sql", b"tar", b"yaml", b"yml",
];

fn is_probed(extension: &[u8]) -> bool {
    extension.get(..3).is_some_and(|e| e.eq_ignore_ascii_case(b"php"))
        || PROBED.iter().any(|e| extension.eq_ignore_ascii_case(e))
}

/// A directory that is hidden, or named like a program (`index.php`): its last extension is all letters.
fn leads_astray(segment: &[u8]) -> bool {
    match segment.iter().rposition(|&b| b == b'.') {
        Some(dot) => {
            let extension = &segment[dot + 1..];
            segment[0] == b'.' || is_probed(extension) || extension.iter().all(u8::is_ascii_alphabetic)
        }
        None => false,
    }
}

/// `%00`, `%2e`, `%2f`, `%3b`, `%5c` and the percent sign itself, encoded.
fn hides(path: &[u8]) -> bool {
    path.windows(3).any(|w| {
        w[0] == b'%'
            && matches!(
                [w[1], w[2].to_ascii_lowercase()],
                [b'0', b'0' | b'a' | b'd'] | [b'2', b'5' | b'e' | b'f'] | [b'3', b'b' | b'f'] | [b'5', b'c']
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_files_are_static() {
        for uri in [
            "/favicon.ico",
            "/a/b.c1f/app.4c1f.js",
            "/site.css?v=3",
            "/My%20Photo.JPG",
            "/robots.txt",
            "/.well-known/security.txt",
            "/v1.2/app.min.js",
            "/a.js#x",
            "/fonts//inter.woff2",
            "/@scope/pkg-1.0.0/x.map",
        ] {
            assert!(is_static(uri.as_bytes()), "{uri}");
        }
    }

    #[test]
    fn probes_in_disguise_are_not() {
        for uri in [
            "",
            "/",
            "/x",
            "x.js",
            "http://h/x.js",
            "/.env?.js",
            "/.env?x=/a.js",
            "/.env#.js",
            "/wp-login.php/.css",
            "/wp-login.php/x.css",
            "/index.php/a/x.css",
            "/.git/x.txt",
            "/.js",
            "/..js",
            "/.env.txt",
            "/wp-config.php.txt",
            "/wp-config.php5.js",
            "/backup.sql.txt",
            "/x.js/",
            "/a/../x.js",
            "/.env%2fx.js",
            "/.env%2Fx.js",
            "/.env%3f.js",
            "/.env%00.js",
            "/.env;.js",
            "/a;x.js",
            "/\\x5C.js",
            "/a b.js",
            "/%2egit/x.txt",
            "/%252egit/x.txt",
            "/x.exe",
            "/x.html",
            "/\",\"x\":\".png",
            "/$x.js",
            "/<x>.js",
        ] {
            assert!(!is_static(uri.as_bytes()), "{uri}");
        }
    }
}
