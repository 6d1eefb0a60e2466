using NativeLora.Data;
using NativeLora.Generation;
using NativeLora.Models;

namespace NativeLora.Hosting;

/// <summary>Rows of a program as a task: what stands on top of the model, the labels, and the rows as tokens.</summary>
internal sealed class TuningRows
{
    private const string Training = "row", Evaluation = "evaluation row";

    private readonly IReadOnlyList<TrainingRow> _train;
    private readonly IReadOnlyList<TrainingRow> _dev;
    private readonly LabelSet? _labels;

    /// <exception cref="InputException">There are no rows, they are of several kinds, or a label is not one of the given.</exception>
    public TuningRows(IReadOnlyList<TrainingRow> train, IReadOnlyList<TrainingRow> dev, IReadOnlyList<string>? labels)
    {
        (_train, _dev) = (train, dev);
        if (train.Count == 0)
            throw new InputException("there are no rows to learn from; give at least one");
        (Head, IsRegression) = Kind(train[0], Training, 0);
        Check(train, Training);
        Check(dev, Evaluation);
        if (Head == ModelHead.LanguageModel || IsRegression)
        {
            if (labels is not null)
                throw new InputException("labels are given, but the rows have no classes; leave them out");
            Labels = IsRegression ? ["score"] : null;
            return;
        }
        _labels = new LabelSet(labels ?? TextDataset.Discover(train.Select(r => r.Label!)));
        if (_labels.Names.Count < 2)
            throw new InputException($"all rows have the same label {LabelSet.Quoted(_labels.Names.FirstOrDefault() ?? "")}; give rows of at least two classes, or name the labels");
        Labels = _labels.Names;
        CheckLabels(train, Training);
        CheckLabels(dev, Evaluation);
    }

    public ModelHead Head { get; }

    public bool IsRegression { get; }

    /// <summary>Names of the classes in the order of their ids; one name for a score; null for language modelling.</summary>
    public IReadOnlyList<string>? Labels { get; }

    public int Count => _train.Count;

    public TaskMetrics? Metrics => Head == ModelHead.LanguageModel ? null : Data.Metrics.For(IsRegression);

    /// <summary>The rows to learn from, all of them or the first <paramref name="most"/>.</summary>
    public List<EncodedExample> Train(ITokenizer tokenizer, Model model, FineTuningOptions options, int? most = null) =>
        Encode(_train.Take(most ?? int.MaxValue), Training, tokenizer, model, options);

    /// <summary>The rows to evaluate on.</summary>
    public List<EncodedExample> Dev(ITokenizer tokenizer, Model model, FineTuningOptions options) => Encode(_dev, Evaluation, tokenizer, model, options);

    private List<EncodedExample> Encode(IEnumerable<TrainingRow> rows, string what, ITokenizer tokenizer, Model model, FineTuningOptions options)
    {
        var length = options.LengthFor(model);
        if (Head == ModelHead.LanguageModel)
        {
            var template = options.Template ?? ChatTemplate.Plain;
            return [.. rows.Select((r, i) => EncodedExample.Causal(template.Encode(tokenizer, new InstructionExample(r.Text, r.Completion!, i + 1), length)))];
        }
        return [.. rows.Select((r, i) =>
        {
            var tokens = tokenizer.Encode(r.Text, r.Pair, length);
            return EncodedExample.Text(tokens, _labels?.Id(r.Label!, what, i + 1), r.Score, model.ClassifiedToken(tokens.Ids));
        })];
    }

    /// <summary>Whether the task is one for a model.</summary>
    /// <exception cref="InputException">It is not.</exception>
    public void CheckModel(Model model)
    {
        if (Head == ModelHead.LanguageModel && model.IsEncoder)
            throw new InputException($"prompts and completions need a causal language model, and {model.Config.ModelType} is an encoder; give another model, or rows with labels");
        if (model.Pictures is not null)
            throw new InputException($"{model.Config.ModelType} reads pictures, and the rows have none; take a model of text alone");
    }

    private void Check(IReadOnlyList<TrainingRow> rows, string what)
    {
        for (var i = 0; i < rows.Count; i++)
        {
            if (Kind(rows[i], what, i) != (Head, IsRegression))
                throw new InputException($"{what} {i + 1} is of another kind than the first; give classes, scores, or completions, and not several of them");
            if (rows[i].Score is { } score && !float.IsFinite(score))
                throw new InputException($"{what} {i + 1} has the score {score}; give a finite number");
        }
    }

    private void CheckLabels(IReadOnlyList<TrainingRow> rows, string what)
    {
        var known = Labels!.ToHashSet(StringComparer.Ordinal);
        for (var i = 0; i < rows.Count; i++)
            if (!known.Contains(rows[i].Label!))
                throw new InputException($"{what} {i + 1} has the label {LabelSet.Quoted(rows[i].Label!)}; the labels are {string.Join(", ", Labels!)}");
    }

    private static (ModelHead Head, bool IsRegression) Kind(TrainingRow? row, string what, int index) => row is null
        ? throw new InputException($"{what} {index + 1} is null; leave it out")
        : (row.Completion is null ? ModelHead.SequenceClassification : ModelHead.LanguageModel, row.Score is not null);
}
