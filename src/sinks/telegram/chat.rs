//! The chat, also after its group has become a supergroup, which has another number.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::config::sinks::ChatId;

/// What is remembered over restarts, in the agent's directory: old numbers and new ones.
const FILE: &str = "telegram-chats.json";
/// Where a group was moved to may have been moved again.
const MOVES: usize = 8;

/// The chat as it is now; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Chat {
    configured: ChatId,
    moved: Arc<Mutex<Option<i64>>>,
    /// `None`: nothing is to be remembered.
    file: Option<PathBuf>,
}

impl Chat {
    /// The chat of the configuration, or what it has become. `state` is the agent's directory.
    pub(super) fn new(configured: ChatId, state: &Path) -> Self {
        let file = Some(state).filter(|dir| !dir.as_os_str().is_empty()).map(|dir| dir.join(FILE));
        let mut moved = None;
        if let (ChatId::Number(id), Some(file)) = (&configured, &file) {
            let moves = read(file);
            let mut at = *id;
            for _ in 0..MOVES {
                let Some(next) = moves.get(&at.to_string()) else { break };
                at = *next;
                moved = Some(at);
            }
        }
        Self { configured, moved: Arc::new(Mutex::new(moved)), file }
    }

    /// As the API names it.
    pub(super) fn id(&self) -> Value {
        match (self.moved(), &self.configured) {
            (Some(id), _) => id.into(),
            (None, ChatId::Number(id)) => (*id).into(),
            (None, ChatId::Name(name)) => name.as_str().into(),
        }
    }

    /// Where it was moved to, if it was.
    pub(super) fn moved(&self) -> Option<i64> {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `chat`, an object of the API, is this one.
    pub(super) fn is(&self, chat: &Value) -> bool {
        let id = chat["id"].as_i64();
        match &self.configured {
            _ if id.is_some() && id == self.moved() => true,
            ChatId::Number(number) => id == Some(*number),
            ChatId::Name(name) => {
                let user = chat["username"].as_str().unwrap_or_default();
                name.strip_prefix('@').is_some_and(|name| name.eq_ignore_ascii_case(user))
            }
        }
    }

    /// It was moved: goes on there, and says so.
    pub(super) fn move_to(&self, id: i64) {
        let old = self.id();
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        tracing::warn!(
            "the Telegram group {old} has become a supergroup; write chat_id: {id} in the configuration"
        );
        let (Some(file), Some(old)) = (&self.file, old.as_i64()) else { return };
        let mut moves = read(file);
        moves.insert(old.to_string(), id);
        if let Err(e) = write(file, &moves) {
            tracing::warn!(
                "failed to remember it in {}: {e}; it is found out again after a restart",
                file.display()
            );
        }
    }
}

fn read(file: &Path) -> BTreeMap<String, i64> {
    let text = std::fs::read(file).unwrap_or_default();
    // What is not there, or is damaged, is found out again.
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write(file: &Path, moves: &BTreeMap<String, i64>) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(moves)?)?;
    std::fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_that_was_moved_is_found_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let new = || Chat::new(ChatId::Number(-5), dir.path());
        let chat = new();
        assert!(chat.id() == -5 && chat.is(&json!({ "id": -5 })) && !chat.is(&json!({ "id": -1005 })));
        chat.clone().move_to(-1005);
        assert!(chat.id() == -1005 && chat.is(&json!({ "id": -1005 })));
        assert_eq!((new().id(), new().moved()), (json!(-1005), Some(-1005)));
        new().move_to(-1006);
        assert_eq!(new().id(), -1006);
        assert_eq!(Chat::new(ChatId::Number(-7), dir.path()).id(), -7, "another chat stays where it is");
        // A circle has an end.
        std::fs::write(dir.path().join(FILE), r#"{"-5":-6,"-6":-5}"#).unwrap();
        assert!(new().moved().is_some());
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(new().id(), -5);
    }

    #[test]
    fn a_channel_is_known_by_its_name() {
        let chat = Chat::new(ChatId::Name("@Bans".to_owned()), Path::new(""));
        assert!(chat.id() == "@Bans" && chat.is(&json!({ "id": -100, "username": "bans" })));
        for other in [json!({ "id": -100, "username": "other" }), json!({ "id": 1 }), json!(null)] {
            assert!(!chat.is(&other), "{other}");
        }
    }
}
