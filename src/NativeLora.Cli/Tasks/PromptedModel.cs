using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using NativeLora.Cli.Commands;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Devices;
using NativeLora.Generation;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Cli.Tasks;

/// <summary>What a generation came to.</summary>
/// <param name="Text">The text.</param>
/// <param name="Reason">Why it ended.</param>
internal sealed record Answered(string Text, string Reason);

/// <summary>A language model, with an adapter or without, that answers many prompts and loses no answer when it is interrupted.</summary>
internal sealed class PromptedModel : IDisposable
{
    private const string Unfinished = "unfinished.jsonl";
    private readonly Device _device;
    private readonly PretrainedModel _pretrained;
    private readonly TrainableModel? _adapted;
    private readonly TextGenerator _generator;
    private readonly string _identity;

    private PromptedModel(Device device, PretrainedModel pretrained, TrainableModel? adapted, ITokenizer tokenizer, string identity)
    {
        (_device, _pretrained, _adapted, Tokenizer, _identity) = (device, pretrained, adapted, tokenizer, identity);
        _generator = adapted is null ? new TextGenerator(pretrained, tokenizer) : new TextGenerator(adapted, tokenizer);
    }

    public ITokenizer Tokenizer { get; }

    public Model Model => _pretrained.Model;

    /// <summary>Opens a model.</summary>
    /// <exception cref="InputException">It, or the adapter, is no language model.</exception>
    public static PromptedModel Open(ModelSettings settings, string? adapter, Ui ui)
    {
        var blueprint = settings.Blueprint();
        if (blueprint.Model.IsEncoder)
            throw new InputException($"{settings.Path}: {blueprint.Model.Config.ModelType} is an encoder; this task takes a model that generates text");
        var device = settings.NewDevice();
        PretrainedModel? pretrained = null;
        TrainableModel? adapted = null;
        try
        {
            ModelView.Line(ui, settings, blueprint.Model, device);
            pretrained = settings.Open(device, null);
            adapted = adapter is null ? null : GenerateCommand.Adapted(pretrained, adapter);
            var weights = adapter is null ? settings.Path : Path.Combine(adapter, "adapter_model.safetensors");
            var identity = $"{Path.GetFullPath(settings.Path)} {(adapter is null ? "" : Path.GetFullPath(adapter))} {File.GetLastWriteTimeUtc(weights):O} {settings.Checkpoint}";
            return new PromptedModel(device, pretrained, adapted, TokenizerLoader.FromFolder(settings.Folder), identity);
        }
        catch
        {
            adapted?.Dispose();
            pretrained?.Dispose();
            device.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Continues prompts. Each answer is kept in a file as it comes; an equal run that was interrupted before goes on where it was.
    /// </summary>
    /// <param name="prompts">Token ids, and pictures.</param>
    /// <param name="options">How; with temperature each prompt draws numbers of its own.</param>
    /// <param name="folder">Where the file lies until all is done.</param>
    /// <param name="onAnswer">Told of each answer, of those kept before, too.</param>
    public IReadOnlyList<Answered> Answer(IReadOnlyList<GenerationPrompt> prompts, GenerationOptions options, string folder, Action<int, Answered> onAnswer)
    {
        Directory.CreateDirectory(folder);
        var path = Path.Combine(folder, Unfinished);
        var mark = Mark(prompts, options);
        var answers = Kept(path, mark, prompts.Count);
        var before = answers.Count(a => a is not null);
        if (before > 0)
            Ui.Note($"{path}: {Ui.Count(before, "answer")} of {Ui.Count(prompts.Count)} are there from an interrupted run, which goes on");
        for (var i = 0; i < answers.Length; i++)
            if (answers[i] is { } known)
                onAnswer(i, known);
        int[] open = [.. Enumerable.Range(0, prompts.Count).Where(i => answers[i] is null)];
        if (open.Length > 0)
        {
            using var file = new StreamWriter(path, append: before > 0);
            if (before == 0)
                file.WriteLine(new JsonObject { ["run"] = mark }.ToJsonString(JsonText.OneLine));
            _generator.Generate((GenerationPrompt[])[.. open.Select(i => prompts[i])], options with { Streams = open }, piece =>
            {
                if (piece.Result is not { } result)
                    return;
                var (index, answer) = (open[piece.Prompt], new Answered(result.Text, GenerationView.NameOf(result.Reason)));
                answers[index] = answer;
                file.WriteLine(new JsonObject { ["index"] = index, ["text"] = answer.Text, ["reason"] = answer.Reason }.ToJsonString(JsonText.OneLine));
                file.Flush();
                onAnswer(index, answer);
            }, Shell.Cancellation);
        }
        return answers!;
    }

    /// <summary>Removes what <see cref="Answer"/> kept, once everything is written.</summary>
    public static void Forget(string folder) => File.Delete(Path.Combine(folder, Unfinished));

    /// <summary>What must be the same for answers to belong together.</summary>
    private string Mark(IReadOnlyList<GenerationPrompt> prompts, GenerationOptions options)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var prompt in prompts)
        {
            hash.AppendData(BitConverter.GetBytes(prompt.Ids.Length));
            hash.AppendData(MemoryMarshal.AsBytes(prompt.Ids.AsSpan()));
            foreach (var picture in prompt.Pictures ?? [])
                hash.AppendData(picture.Identity());
        }
        var settings = string.Create(CultureInfo.InvariantCulture,
            $"{_identity} {options.MaxNewTokens} {options.Temperature} {options.TopK} {options.TopP} {options.MinP} {options.RepetitionPenalty} {options.Seed} {options.IgnoreEos}");
        hash.AppendData(System.Text.Encoding.UTF8.GetBytes($"{settings} {string.Join('\0', options.StopStrings)} {string.Join(' ', options.EndTokens)}"));
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    internal static Answered?[] Kept(string path, string mark, int count)
    {
        var answers = new Answered?[count];
        if (!File.Exists(path))
            return answers;
        string[] lines;
        try
        {
            lines = File.ReadAllLines(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{path}: cannot be read: {e.Message}; remove it to begin anew", e);
        }
        if (lines.Length == 0 || Parse(lines[0]) is not { } first || Text(first, "run") != mark)
            return answers;
        var good = new List<string> { lines[0] };
        foreach (var line in lines.Skip(1))
        {
            // The last line may have been cut off.
            if (Parse(line) is not { } row || Index(row) is not { } at
                || (uint)at >= (uint)count || Text(row, "text") is not { } text || Text(row, "reason") is not { } reason)
                continue;
            answers[at] = new Answered(text, reason);
            good.Add(line);
        }
        Checkpoints.AtomicFile.WriteAllText(path, string.Join('\n', good) + "\n");
        return answers;
    }

    // What a process that was killed left may be half a line, and no text at all.
    private static JsonElement? Parse(string line)
    {
        try
        {
            using var document = JsonDocument.Parse(line, new JsonDocumentOptions { AllowDuplicateProperties = false });
            return document.RootElement.ValueKind == JsonValueKind.Object ? document.RootElement.Clone() : null;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            return null;
        }
    }

    private static int? Index(JsonElement row)
    {
        try
        {
            return row.TryGetProperty("index", out var index) && index.ValueKind == JsonValueKind.Number && index.TryGetInt32(out var at) ? at : null;
        }
        catch (InvalidOperationException)
        {
            return null;
        }
    }

    private static string? Text(JsonElement row, string name)
    {
        try
        {
            return row.TryGetProperty(name, out var text) && text.ValueKind == JsonValueKind.String ? text.GetString() : null;
        }
        catch (InvalidOperationException)
        {
            // Half of a surrogate pair.
            return null;
        }
    }

    public void Dispose()
    {
        _generator.Dispose();
        _adapted?.Dispose();
        _pretrained.Dispose();
        _device.Dispose();
    }
}
