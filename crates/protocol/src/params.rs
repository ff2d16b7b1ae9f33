// SPDX-License-Identifier: Apache-2.0
//! Reads parameters one by one, so that an error names the parameter, what was wrong and what is allowed.
//!
//! `null` counts as absent wherever a parameter may be absent. Keys nobody asks for are ignored.

use serde_json::{Map, Value};

use crate::limits::{COMMAND_ARGS_MAX, ENVS_BYTES_MAX, ENVS_MAX, TIMEOUT_MAX};
use crate::network::NetworkError;

/// Why a parameter was refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ParamsError {
    /// The parameters are no object.
    #[error("{0}")]
    NoObject(&'static str),
    /// A parameter that a sandbox needs is absent; published clients know the text.
    #[error("Missing required '{key}' parameter for portal request")]
    MissingForPortal {
        /// The parameter.
        key: &'static str,
    },
    /// A parameter is absent.
    #[error("Missing required '{key}' parameter: it must be {allowed}")]
    Missing {
        /// The parameter.
        key: String,
        /// What it must be.
        allowed: String,
    },
    /// A parameter is empty.
    #[error("Invalid '{key}' parameter: it must not be empty")]
    Empty {
        /// The parameter.
        key: String,
    },
    /// A parameter is something else than it must be.
    #[error("Invalid '{key}' parameter: it must be {allowed}, not {found}")]
    Wrong {
        /// The parameter.
        key: String,
        /// What it must be.
        allowed: String,
        /// What it is.
        found: String,
    },
    /// A parameter is none of a few words.
    #[error("Invalid '{key}' parameter: '{found}' is none of {allowed}")]
    Unknown {
        /// The parameter.
        key: String,
        /// What it is.
        found: String,
        /// The words.
        allowed: String,
    },
    /// A parameter about the network is refused.
    #[error("Invalid '{key}' parameter: {why}")]
    Refused {
        /// The parameter.
        key: String,
        /// Why.
        #[source]
        why: NetworkError,
    },
}

/// One of a few words, or an object with one list.
#[derive(Debug)]
pub(crate) enum WordOrList {
    Word(&'static str),
    List(Vec<String>),
}

/// The parameters of one call, or of one object in them.
#[derive(Debug)]
pub(crate) struct Params<'a> {
    /// Nothing when the client sent no parameters.
    map: Option<&'a Map<String, Value>>,
    prefix: &'static str,
}

impl<'a> Params<'a> {
    /// Takes the parameters, which must be an object; `otherwise` is the text of the error when they are none, and
    /// nothing where they may be left out.
    pub(crate) fn object(
        value: &'a Value,
        otherwise: Option<&'static str>,
    ) -> Result<Params<'a>, ParamsError> {
        match (value.as_object(), otherwise) {
            (None, Some(text)) => Err(ParamsError::NoObject(text)),
            (map, _) => Ok(Params { map, prefix: "" }),
        }
    }

    /// Returns the parameter's name as an error calls it.
    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, allowed: impl Into<String>, found: impl Into<String>) -> ParamsError {
        ParamsError::Wrong { key: self.path(key), allowed: allowed.into(), found: found.into() }
    }

    pub(crate) fn text(&self, key: &str) -> Result<&'a str, ParamsError> {
        let missing = || ParamsError::Missing { key: self.path(key), allowed: "a string".to_owned() };
        self.optional_text(key)?.ok_or_else(missing)
    }

    pub(crate) fn text_without_nul(&self, key: &str) -> Result<&'a str, ParamsError> {
        let text = self.text(key)?;
        if text.contains('\0') {
            return Err(self.wrong(key, "a string without NUL characters", "one with"));
        }
        Ok(text)
    }

    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, ParamsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string", describe(value)))
    }

    pub(crate) fn optional_object(&self, key: &'static str) -> Result<Option<Params<'a>>, ParamsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.wrong(key, "an object", describe(value)))?;
        Ok(Some(Params { map: Some(map), prefix: "config." }))
    }

    /// Reads a whole number between two bounds.
    pub(crate) fn optional_whole(&self, key: &str, min: u32, max: u32) -> Result<Option<u32>, ParamsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n));
        let allowed = || format!("a whole number from {min} to {max}");
        number.map(Some).ok_or_else(|| self.wrong(key, allowed(), describe(value)))
    }

    /// Reads a number of seconds; more than a day counts as a day.
    pub(crate) fn optional_seconds(&self, key: &str) -> Result<Option<u64>, ParamsError> {
        let seconds = self.optional_count(key, "a whole number of seconds, 0 or more")?;
        Ok(seconds.map(|seconds| seconds.min(TIMEOUT_MAX.as_secs())))
    }

    /// Reads a number of milliseconds; more than a day counts as a day.
    pub(crate) fn optional_milliseconds(&self, key: &str) -> Result<Option<u64>, ParamsError> {
        let milliseconds = self.optional_count(key, "a whole number of milliseconds, 0 or more")?;
        Ok(milliseconds.map(|milliseconds| milliseconds.min(TIMEOUT_MAX.as_secs() * 1000)))
    }

    fn optional_count(&self, key: &str, allowed: &str) -> Result<Option<u64>, ParamsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| self.wrong(key, allowed, describe(value)))
    }

    /// Reads strings, at most so many.
    pub(crate) fn optional_texts(&self, key: &str, most: usize) -> Result<Vec<String>, ParamsError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let allowed = "an array of strings";
        let items = value.as_array().ok_or_else(|| self.wrong(key, allowed, describe(value)))?;
        if items.len() > most {
            return Err(self.wrong(key, format!("at most {most} strings"), items.len().to_string()));
        }
        let text = |(index, item): (usize, &Value)| {
            let wrong = || self.wrong(key, allowed, format!("{} at position {index}", describe(item)));
            item.as_str().map(str::to_owned).ok_or_else(wrong)
        };
        items.iter().enumerate().map(text).collect()
    }

    /// Reads one of two words, or an object that has one list of strings and nothing else.
    pub(crate) fn optional_word_or_list(
        &self,
        key: &'static str,
        words: [&'static str; 2],
        list: &'static str,
        most: usize,
    ) -> Result<Option<WordOrList>, ParamsError> {
        let allowed =
            format!("\"{}\", \"{}\" or an object with an array \"{list}\" alone", words[0], words[1]);
        let Some(value) = self.get(key) else { return Ok(None) };
        match value {
            Value::String(text) => {
                let found = words.into_iter().find(|word| word == text);
                let shown = || {
                    format!("'{}'", text.chars().take(64).flat_map(char::escape_debug).collect::<String>())
                };
                found
                    .map(|word| Some(WordOrList::Word(word)))
                    .ok_or_else(|| self.wrong(key, allowed, shown()))
            }
            Value::Object(map) if map.len() == 1 && map.get(list).is_some_and(Value::is_array) => {
                let inner = Params { map: Some(map), prefix: "config.network." };
                inner.optional_texts(list, most).map(|texts| Some(WordOrList::List(texts)))
            }
            Value::Object(_) => Err(self.wrong(key, allowed, "another object")),
            other => Err(self.wrong(key, allowed, describe(other))),
        }
    }

    /// Reads the arguments of a command.
    pub(crate) fn optional_arguments(&self, key: &str) -> Result<Vec<String>, ParamsError> {
        let arguments = self.optional_texts(key, COMMAND_ARGS_MAX)?;
        if arguments.iter().any(|argument| argument.contains('\0')) {
            return Err(self.wrong(key, "strings without NUL characters", "one with"));
        }
        Ok(arguments)
    }

    /// Reads `NAME=value` texts.
    pub(crate) fn optional_assignments(&self, key: &str) -> Result<Vec<(String, String)>, ParamsError> {
        let texts = self.optional_texts(key, ENVS_MAX)?;
        if texts.iter().map(String::len).sum::<usize>() > ENVS_BYTES_MAX {
            return Err(self.wrong(key, format!("at most {ENVS_BYTES_MAX} bytes together"), "more"));
        }
        let allowed = "an array of \"NAME=value\" strings, each with a name and without NUL characters";
        let assignment = |(index, text): (usize, &String)| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
                Ok((name.to_owned(), value.to_owned()))
            }
            _ => Err(self.wrong(key, allowed, format!("something else at position {index}"))),
        };
        texts.iter().enumerate().map(assignment).collect()
    }

    pub(crate) fn optional_absolute_path(&self, key: &str) -> Result<Option<String>, ParamsError> {
        let Some(text) = self.optional_text(key)? else { return Ok(None) };
        if !text.starts_with('/') || text.contains('\0') {
            let found = text.chars().take(100).filter(|c| !c.is_control()).collect::<String>();
            return Err(self.wrong(key, "an absolute path inside the sandbox", format!("'{found}'")));
        }
        Ok(Some(text.to_owned()))
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
