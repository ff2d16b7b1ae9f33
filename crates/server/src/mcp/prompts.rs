// SPDX-License-Identifier: Apache-2.0
//! Prompts: a person picks one, and the model is told what to do.

use protocol::names::{NamespaceName, SandboxName};
use rmcp::ErrorData;
use rmcp::model::{GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};
use serde_json::{Value, json};

/// What one prompt is about.
struct Recipe {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    image: &'static str,
    language: &'static str,
    first_code: &'static str,
}

const RECIPES: [Recipe; 2] = [
    Recipe {
        name: "create_python_sandbox",
        title: "Create a Python sandbox",
        description: "Start a sandbox with Python, check that it works, and get ready to run code in it",
        image: "microsandbox/python",
        language: "python",
        first_code: "import sys; print(sys.version)",
    },
    Recipe {
        name: "create_node_sandbox",
        title: "Create a Node.js sandbox",
        description: "Start a sandbox with Node.js, check that it works, and get ready to run code in it",
        image: "microsandbox/node",
        language: "nodejs",
        first_code: "console.log(process.version)",
    },
];

/// Returns every prompt there is.
pub(super) fn list() -> Vec<Prompt> {
    let argument = |name: &str, description: &str| {
        PromptArgument::new(name).with_description(description).with_required(true)
    };
    let arguments = || {
        vec![
            argument("sandbox_name", "The sandbox's name: letters, digits, hyphens and underscores"),
            argument(
                "namespace",
                "The namespace that the sandbox is in; 'default' if there is no reason for another",
            ),
        ]
    };
    let prompt = |recipe: &Recipe| {
        Prompt::new(recipe.name, Some(recipe.description), Some(arguments())).with_title(recipe.title)
    };
    RECIPES.iter().map(prompt).collect()
}

/// Returns the text of a prompt.
pub(super) fn get(name: &str, arguments: &JsonObject) -> Result<GetPromptResult, ErrorData> {
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name).ok_or_else(|| {
        let names = RECIPES.map(|recipe| recipe.name).join(", ");
        invalid(format!("Unknown prompt: {name}; the prompts are {names}"))
    })?;
    let sandbox =
        SandboxName::parse(argument(arguments, "sandbox_name")?).map_err(|e| invalid(e.to_string()))?;
    let namespace =
        NamespaceName::parse(argument(arguments, "namespace")?).map_err(|e| invalid(e.to_string()))?;
    let text = recipe.text(&sandbox.to_string(), &namespace.to_string());
    let message = PromptMessage::new_text(Role::User, text);
    Ok(GetPromptResult::new(vec![message]).with_description(recipe.description))
}

fn argument<'a>(arguments: &'a JsonObject, name: &str) -> Result<&'a str, ErrorData> {
    let text = arguments.get(name).and_then(Value::as_str);
    text.ok_or_else(|| invalid(format!("Missing required argument '{name}': it must be a string")))
}

fn invalid(text: String) -> ErrorData {
    ErrorData::invalid_params(text, None)
}

impl Recipe {
    fn text(&self, sandbox: &str, namespace: &str) -> String {
        let target = json!({"sandbox": sandbox, "namespace": namespace});
        let with = |more: Value| {
            let mut all = target.clone();
            let members = all.as_object_mut().into_iter().zip(more.as_object());
            members.for_each(|(all, more)| all.extend(more.clone()));
            all
        };
        let start = with(json!({"config": {"image": self.image, "memory": 512, "cpus": 1}}));
        let run = with(json!({"language": self.language, "code": self.first_code, "timeout": 30}));
        let language = if self.language == "python" { "Python" } else { "JavaScript" };
        format!(
            "Set up the sandbox '{sandbox}' in the namespace '{namespace}' for {language} code.\n\n\
             1. Call sandbox_start with {start}\n\
             2. Call sandbox_run_code with {run} and see that its status is \"success\".\n\
             3. Tell me which version runs there, and that the sandbox is ready.\n\n\
             From then on, run my {language} code there with sandbox_run_code: variables are kept from run to run, and \
             only what is printed comes back. Use sandbox_run_command for programs, and sandbox_get_metrics with \
             {target} to see what the sandbox uses. If a call fails, do what its text says and try again. When I say \
             that we are done, call sandbox_stop with {target}: that removes the sandbox's files."
        )
    }
}
