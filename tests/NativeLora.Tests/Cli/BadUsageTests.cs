namespace NativeLora.Tests.Cli;

/// <summary>Whatever is wrong with what was typed or given: one line that says what, exit code 2, nothing written.</summary>
public sealed class BadUsageTests
{
    [Fact]
    public void UnknownCommand_IsNamedAndTheOneMeantSuggested() => CliRun.Of("selct", "--model", "x").AssertRefused("\"selct\" (did you mean select?)");

    [Fact]
    public void UnknownOption_IsNamed() => CliRun.Of("info", "--modle", "x").AssertRefused("--modle");

    [Fact]
    public void MissingOption_IsNamed() => CliRun.Of("select").AssertRefused("--model");

    [Fact]
    public void NoArguments_ShowTheCommands()
    {
        var run = CliRun.Of().AssertDone();
        foreach (var command in (string[])["info", "select", "memory", "predict", "merge", "verify"])
            Assert.Contains(command, run.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("select", "--task", "mrpc", "--data", "x")]
    [InlineData("memory")]
    [InlineData("info")]
    [InlineData("predict", "--text", "x")]
    public void MissingModelFolder(string command, params string[] more) =>
        CliRun.Of([command, "--model", "/no/such/model", .. more]).AssertRefused("/no/such/model");

    [Theory]
    [InlineData("--threads 0", "0 threads")]
    [InlineData("--weights int8", "--weights int8")]
    [InlineData("--threads many", "many")]
    public void WrongModelOptions(string option, string saying) =>
        CliRun.Of(["info", .. option.Split(' ')]).AssertRefused(saying);

    [SharedTheory]
    [InlineData("--task mrcp", "did you mean mrpc?")]
    [InlineData("--ratio 0.1", "chooses none")]
    [InlineData("--ratio 2", "at most 1")]
    [InlineData("--ratio 0.5 --strategy all", "--ratio 0.5 has no meaning")]
    [InlineData("--strategy best", "\"best\"")]
    [InlineData("--strategy 0110", "4 digits")]
    [InlineData("--strategy 3,9", "layer 9")]
    [InlineData("--rule papers", "--rule papers")]
    [InlineData("--token end", "\"end\"")]
    [InlineData("--token content", "--token content")]
    [InlineData("--targets qury,vlue", "matches no module")]
    [InlineData("--targets regex:(", "target_modules")]
    [InlineData("--r 0", "r (the rank) is 0")]
    [InlineData("--dropout 1", "lora_dropout")]
    [InlineData("--samples 1", "--samples 1")]
    [InlineData("--bootstrap -1", "--bootstrap -1")]
    [InlineData("--batch-size 0", "--batch-size 0")]
    [InlineData("--max-length 25", "at most 24")]
    [InlineData("--text-field body", "body")]
    [InlineData("--task instruct", "instruct")]
    public void WrongSelection(string options, string saying)
    {
        using var model = new SmallModel();
        string[] task = options.Contains("--task", StringComparison.Ordinal) ? [] : ["--task", "text"];
        string[] fields = options.Contains("instruct", StringComparison.Ordinal) ? ["--instruction-field", "text", "--output-field", "other"] : [];
        var output = model.Place("out");
        CliRun.Of(["select", "--model", model.Path, "--data", model.Data, "--output", output, .. task, .. fields, .. options.Split(' ')]).AssertRefused(saying);
        Assert.False(Directory.Exists(output));
    }

    [SharedTheory]
    [InlineData("text\tlabel\nab\tyes\nac\n", "line 3")]
    [InlineData("", "rows.tsv")]
    [InlineData("text\tlabel\n", "no rows")]
    [InlineData("text\tlabel\nab\tyes\nac\tyes\n", "same label")]
    public void MalformedRows(string content, string saying)
    {
        using var model = new SmallModel();
        CliRun.Of("select", "--model", model.Path, "--task", "text", "--data", model.Write("bad-rows.tsv", content)).AssertRefused(saying);
    }

    [SharedFact]
    public void UnsupportedArchitecture()
    {
        using var model = new SmallModel();
        var path = model.Path;
        var config = Path.Combine(path, "config.json");
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"bert\"", "\"mamba\"", StringComparison.Ordinal));
        CliRun.Of("info", "--model", path).AssertRefused("model_type");
        CliRun.Of("memory", "--model", path).AssertRefused("model_type");
        CliRun.Of("select", "--model", path, "--task", "cola", "--data", Shared.Path("data", "glue")).AssertRefused("model_type");
    }

    [SharedFact]
    public void PredictAndMerge_WithoutAnAdapter()
    {
        using var model = new SmallModel();
        CliRun.Of("predict", "--model", model.Path).AssertRefused("nothing to predict");
        CliRun.Of("predict", "--model", model.Path, "--text", "ab", "--adapter", "/no/such/adapter").AssertRefused("/no/such/adapter");
        CliRun.Of("merge", "--model", model.Path, "--adapter", model.Path, "--output", model.Place("out")).AssertRefused("adapter_config.json");
        CliRun.Of("memory", "--model", model.Path, "--mask", "11").AssertRefused("11");
        CliRun.Of("memory", "--model", model.Path, "--optimizer", "sgd").AssertRefused("adamw");
        CliRun.Of("memory", "--model", model.Path, "--selection", model.Data).AssertRefused("rows.tsv");
    }
}
