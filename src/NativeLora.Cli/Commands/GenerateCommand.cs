using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using NativeLora.Adapters;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Generation;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora generate</c>: continuations of prompts.</summary>
internal static class GenerateCommand
{
    public static Command Create()
    {
        var model = new ModelOptions();
        var sampling = new SamplingOptions();
        var adapter = new Option<string?>("--adapter", "-a") { Description = "folder of the PEFT adapter, or its name on the hub (default: the model as it is)", HelpName = "DIR" };
        var prompt = new Option<string[]>("--prompt", "-p") { Description = "text to continue; may be given several times", HelpName = "TEXT" };
        var file = new Option<string[]>("--prompt-file") { Description = "file whose whole text is a prompt; - for the standard input", HelpName = "FILE" };
        var image = new Option<string[]>("--image") { Description = "picture for a model that reads them, at the place of <image> in the prompt, or before it; may be given several times", HelpName = "FILE" };
        var chat = new Option<bool>("--chat") { Description = "the prompt is a message to a chat model" };
        var template = new Option<string?>("--template") { Description = $"prompt of the chat: auto (the model's own), {string.Join(", ", ChatTemplate.Names)}, or a .txt file (default: auto)", HelpName = "NAME" };
        var system = new Option<string?>("--system") { Description = "system message of the chat (default: the template's)", HelpName = "TEXT" };
        var instruct = new Option<bool>("--instruct") { Description = "the prompt is an instruction: it is put into the prompt that train --task instruct learns" };
        var json = new Option<bool>("--json") { Description = "a JSON object for each prompt, on a line" };
        var command = new Command("generate", "Continue texts with a decoder.") { adapter, prompt, file, image, chat, template, system, instruct, json };
        model.AddTo(command);
        sampling.AddTo(command);
        command.SetAction(parsed =>
        {
            var settings = model.Read(parsed);
            var options = sampling.Read(parsed);
            if (parsed.GetValue(chat) && parsed.GetValue(instruct))
                throw new InputException("both --chat and --instruct are given: give one of them");
            if (parsed.GetValue(system) is not null && !parsed.GetValue(chat))
                throw new InputException("--system goes with --chat");
            if (parsed.GetValue(template) is not null && !parsed.GetValue(chat))
                throw new InputException("--template goes with --chat");
            var named = TemplateSettings.Parse(parsed.GetValue(template) ?? (parsed.GetValue(chat) ? "auto" : null));
            if (named is { IsPaper: true })
                throw new InputException("--template paper is no chat template: use --instruct in place of --chat");
            var prompts = Prompts(parsed.GetValue(prompt)!, parsed.GetValue(file)!);
            Run(settings, parsed.GetValue(adapter), new Asked(prompts, parsed.GetValue(image)!, named, parsed.GetValue(system), parsed.GetValue(instruct)), options, parsed.GetValue(json));
            return 0;
        });
        return command;
    }

    private static List<string> Prompts(IReadOnlyList<string> texts, IReadOnlyList<string> files)
    {
        var prompts = texts.ToList();
        foreach (var path in files)
        {
            if (path != "-" && !File.Exists(path))
                throw new InputException($"{path}: there is no such file; give a text file, or - for the standard input");
            prompts.Add(path == "-" ? Console.In.ReadToEnd() : File.ReadAllText(path));
        }
        return prompts.Count > 0 ? prompts : throw new InputException("there is nothing to continue: give --prompt TEXT or --prompt-file FILE");
    }

    /// <summary>What was typed.</summary>
    /// <param name="Prompts">The texts.</param>
    /// <param name="Images">Pictures of each of them.</param>
    /// <param name="Chat">The template, if they are messages.</param>
    /// <param name="System">A system message in place of the template's.</param>
    /// <param name="Instruct">Whether they are instructions.</param>
    private sealed record Asked(IReadOnlyList<string> Prompts, IReadOnlyList<string> Images, TemplateSettings? Chat, string? System, bool Instruct);

    private static void Run(ModelSettings settings, string? adapter, Asked asked, GenerationOptions options, bool json)
    {
        // What can be wrong is found before the weights are opened.
        var model = settings.Blueprint().Model;
        IReadOnlyList<PictureInput> pictures = [];
        var prompts = asked.Prompts;
        if (asked.Images.Count > 0)
        {
            var files = PictureFiles.Of(model);
            pictures = [.. asked.Images.Select(files.Open)];
            foreach (var picture in pictures)
                picture.CopyPixels(model.Pictures!.Size, new float[model.Pictures.Values]);
        }
        if (model.Pictures is not null)
            prompts = [.. prompts.Select((p, i) => Placed(p, i, asked.Images.Count))];
        var template = asked.Chat switch
        {
            // Where a LLaVA has no template of its own, it is that of 1.5.
            { Name: TemplateSettings.Auto } when model.Pictures is not null => ChatTemplate.FromFolder(settings.Folder, ChatTemplate.Named("llava")),
            var chat => chat?.Resolve(settings.Folder),
        };

        using var device = settings.NewDevice();
        using var pretrained = settings.Open(device, null);
        using var adapted = adapter is null ? null : Adapted(pretrained, adapter);
        var tokenizer = TokenizerLoader.FromFolder(settings.Folder);
        if (template is not null)
            options = Ending(options, template, tokenizer);
        using var generator = adapted is null ? new TextGenerator(pretrained, tokenizer) : new TextGenerator(adapted, tokenizer);
        var view = new GenerationView(asked.Prompts, json);
        Report(generator.Generate([.. prompts.Select(p => new GenerationPrompt(Ids(p), pictures))], options, view.Show, Shell.Cancellation), generator);

        int[] Ids(string prompt)
        {
            if (template is not null)
                return Expanded(template.PromptIds(tokenizer, new InstructionExample(prompt, "", 1), asked.System, model.Pictures?.TokenId));
            var text = asked.Instruct ? InstructionPrompt.Source(prompt) : prompt;
            return model.Pictures is { } layout ? Expanded(PicturePrompt.Encode(tokenizer, text, layout.TokenId)) : tokenizer.Encode(text);
        }

        int[] Expanded(int[] ids) => model.Pictures?.Expand(ids) ?? ids;
    }

    /// <summary>A prompt with a place for each picture: before it, if it has none.</summary>
    private static string Placed(string prompt, int index, int pictures)
    {
        var places = PicturePrompt.Places(prompt);
        return places == pictures ? prompt
            : places == 0 ? string.Concat(Enumerable.Repeat($"{PicturePrompt.Token}\n", pictures)) + prompt
            : throw new InputException($"prompt {index + 1} has {Ui.Count(places, "place")} {PicturePrompt.Token} for {Ui.Count(pictures, "picture")}: give --image once for each place");
    }

    /// <summary>With the token that ends an answer.</summary>
    public static GenerationOptions Ending(GenerationOptions options, ChatTemplate template, ITokenizer tokenizer) =>
        template.EndOfTurn is { } text && tokenizer.TokenId(text) is { } end ? options with { EndTokens = [end] } : options;

    /// <summary>The model with an adapter of a language model.</summary>
    public static TrainableModel Adapted(PretrainedModel pretrained, string adapter)
    {
        var folder = AdapterFolder.Open(adapter);
        if (pretrained.Model.IsEncoder || folder.Head(pretrained.Model) != ModelHead.LanguageModel)
            throw new InputException($"{adapter} is no adapter of a language model: generate takes those that train --task instruct makes");
        return folder.Over(pretrained, ModelHead.LanguageModel);
    }

    private static void Report(GenerationRun run, TextGenerator generator) => Console.Error.WriteLine(string.Create(
        CultureInfo.InvariantCulture,
        $"{run.PromptTokens} prompt tokens, {Rate(run.PromptTokens, run.PromptSeconds)}; {run.Results.Sum(r => r.Ids.Count)} new tokens, {Rate(run.NewTokens, run.NewSeconds)}; memory {Ui.MiB(generator.Session!.Memory.Total)}, {Ui.MiB(generator.Session.Memory.Cache)} of it cache"));

    private static string Rate(long tokens, double seconds) =>
        seconds > 0 ? string.Create(CultureInfo.InvariantCulture, $"{tokens / seconds:0.0} tokens/s") : "– tokens/s";
}

/// <summary>
/// Shows what is generated: one text as it comes, several each in one go, under their numbers, in the order of the prompts.
/// </summary>
internal sealed class GenerationView(IReadOnlyList<string> prompts, bool json)
{
    private readonly GeneratedText?[] _done = new GeneratedText?[prompts.Count];
    private readonly bool _terminal = !Console.IsOutputRedirected;
    private int _shown;

    public void Show(GeneratedPiece piece)
    {
        _done[piece.Prompt] ??= piece.Result;
        if (!json && prompts.Count == 1)
        {
            Console.Out.Write(Plain(piece.Text));
            if (piece.Result is not null)
                Console.Out.WriteLine();
            Console.Out.Flush();
            return;
        }
        for (; _shown < _done.Length && _done[_shown] is { } result; _shown++)
            if (json)
                Console.Out.WriteLine(Document(prompts[_shown], result).ToJsonString(JsonText.OneLine));
            else
                Console.Out.WriteLine($"[{_shown + 1}] {Plain(result.Text)}");
    }

    public static string NameOf(FinishReason reason) => reason switch
    {
        FinishReason.EndToken => "end_token",
        FinishReason.StopString => "stop_string",
        _ => "length",
    };

    private static JsonObject Document(string prompt, GeneratedText result) => new()
    {
        ["prompt"] = prompt,
        ["text"] = result.Text,
        ["finish_reason"] = NameOf(result.Reason),
        ["ids"] = new JsonArray([.. result.Ids.Select(id => (JsonNode)id)]),
    };

    /// <summary>A model's text must not steer the terminal.</summary>
    private string Plain(string text)
    {
        if (!_terminal)
            return text;
        var plain = new StringBuilder(text.Length);
        foreach (var c in text)
            plain.Append(char.IsControl(c) && c is not ('\n' or '\t') ? '\uFFFD' : c);
        return plain.ToString();
    }
}
